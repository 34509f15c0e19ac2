// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/managedfields/managedfieldstest"
)

// foreign is a Lease with many fields that this package does not know.
const foreign = `{
  "apiVersion": "coordination.k8s.io/v1",
  "kind": "Lease",
  "future": {"a": [1, 2.50, "<&>"]},
  "metadata": {
    "name": "biller", "namespace": "shop", "uid": "u-1", "resourceVersion": "41",
    "generation": 9007199254740993,
    "labels": {"app": "biller"},
    "annotations": {"metaparticle.io/token": "40", "other": "kept"},
    "ownerReferences": [{"kind": "ConfigMap", "name": "x", "uid": "o"}],
    "finalizers": ["example.com/f"],
    "managedFields": [{"manager": "m", "operation": "Apply"}]
  },
  "spec": {
    "holderIdentity": "pod-a_1",
    "leaseDurationSeconds": 30,
    "acquireTime": "2026-01-02T03:04:05.000006Z",
    "renewTime": "2026-01-02T05:04:05.700000+02:00",
    "leaseTransitions": 7,
    "preferredHolder": "pod-b",
    "strategy": "OldestEmulationVersion",
    "quorum": null
  }
}`

func parse(t *testing.T, text string) *Lease {
	t.Helper()
	lease, err := decodeLease([]byte(text))
	require.NoError(t, err)
	return lease
}

func TestDecodedLeaseHasEveryFieldOfItsJSON(t *testing.T) {
	lease := parse(t, foreign)
	assert.Equal(t, "biller", lease.Name)
	assert.Equal(t, "shop", lease.Namespace)
	assert.Equal(t, "u-1", lease.UID)
	assert.Equal(t, "41", lease.ResourceVersion)
	assert.Equal(t, "pod-a_1", lease.Holder)
	assert.Equal(t, 30, lease.DurationSeconds)
	assert.Equal(t, 7, lease.Transitions)
	assert.True(t, lease.AcquireTime.Equal(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)))
	assert.True(t, lease.RenewTime.Equal(time.Date(2026, 1, 2, 3, 4, 5, 700_000_000, time.UTC)))
	assert.Equal(t, map[string]string{"app": "biller"}, lease.Labels)
	assert.Equal(t, "40", lease.Annotations["metaparticle.io/token"])
}

func TestUnknownFieldsOfALeaseSurviveAWrite(t *testing.T) {
	lease := parse(t, foreign)
	lease.Holder = "pod-c_3"
	lease.RenewTime = time.Date(2026, 1, 2, 3, 4, 6, 999, time.FixedZone("", 3600))
	lease.Annotations["metaparticle.io/token"] = "41"
	written, err := json.Marshal(lease)
	require.NoError(t, err)

	want := replace(t, foreign,
		`"pod-a_1"`, `"pod-c_3"`,
		`"2026-01-02T05:04:05.700000+02:00"`, `"2026-01-02T02:04:06.000000Z"`,
		`"metaparticle.io/token": "40"`, `"metaparticle.io/token": "41"`)
	assert.JSONEq(t, want, string(written))
	// JSONEq compares numbers as floats, and no float is equal to this number.
	assert.Contains(t, string(written), "9007199254740993")
}

// The list of writers would be half of a Lease's bytes, in each renewal and each event.
func TestWritesClearManagedFields(t *testing.T) {
	const applied = `[{"manager":"agent","operation":"Update"},{"manager":"kubectl","operation":"Apply"}]`
	long := func(bytes int) string {
		list := `[{"manager":"","operation":"Apply"}]`
		return strings.Replace(list, `""`, `"`+strings.Repeat("x", bytes-len(list))+`"`, 1)
	}
	for name, c := range map[string]struct{ list, written string }{
		"ordinary writes":             {`[{"manager":"agent","operation":"Update"},{"manager":"webhook","operation":"Update"}]`, `[{}]`},
		"a write by server's apply":   {applied, applied},
		"the longest list kept":       {long(maxManagedFields), long(maxManagedFields)},
		"a list that is too long":     {long(maxManagedFields + 1), `[{}]`},
		"a long list of another form": {`{"a":"` + strings.Repeat("x", maxManagedFields) + `"}`, `[{}]`},
		"no list":                     {"", ""},
		"a list of another form":      {`{"a":1}`, `{"a":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			list := ""
			if c.list != "" {
				list = `,"managedFields":` + c.list
			}
			text := `{"metadata":{"name":"a","uid":"u","resourceVersion":"1"` + list + `}}`
			variable, err := decodeVariable([]byte(text), "a")
			require.NoError(t, err)
			for _, object := range []json.Marshaler{parse(t, text), variable} {
				sent, err := json.Marshal(object)
				require.NoError(t, err)
				var written struct {
					Metadata struct {
						ManagedFields json.RawMessage `json:"managedFields"`
					} `json:"metadata"`
				}
				require.NoError(t, json.Unmarshal(sent, &written))
				assert.Equal(t, c.written, string(written.Metadata.ManagedFields), "%T", object)
			}
		})
	}
}

// A hostile pod could fill a Lease by such a list. The API server itself keeps the list in each later
// write, so the slot would be useless for ever.
func TestAgentMakesAFilledLeaseSmallAgain(t *testing.T) {
	const size = 1 << 20
	kind := schema.GroupVersionKind{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"}
	server := managedfieldstest.NewFakeFieldManager(managedfields.NewDeducedTypeConverter(), kind)
	decode := func(text []byte) *unstructured.Unstructured {
		object := new(unstructured.Unstructured)
		require.NoError(t, object.UnmarshalJSON(text))
		return object
	}
	const empty = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"lock.a","uid":"u","resourceVersion":"1"},"spec":{}}`
	hostile := decode([]byte(empty))
	hostile.SetManagedFields([]metav1.ManagedFieldsEntry{{
		Manager: "m", Operation: metav1.ManagedFieldsOperationApply, APIVersion: "coordination.k8s.io/v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:` + strings.Repeat("x", size) + `":{}}}}`),
	}})
	filled, err := server.Update(decode([]byte(empty)), hostile, "evil")
	require.NoError(t, err)
	text, err := json.Marshal(filled)
	require.NoError(t, err)
	require.Greater(t, len(text), size)

	lease := parse(t, string(text))
	lease.Holder, lease.Annotations = "pod-a_1", map[string]string{"metaparticle.io/hold": "h"}
	sent, err := json.Marshal(lease)
	require.NoError(t, err)
	assert.Less(t, len(sent), 1<<10)
	stored, err := server.Update(filled, decode(sent), "agent")
	require.NoError(t, err)
	text, err = json.Marshal(stored)
	require.NoError(t, err)
	assert.Less(t, len(text), 1<<10)
}

func TestReleasedLeaseHasAnEmptyHolderIdentity(t *testing.T) {
	lease := parse(t, foreign)
	lease.Holder = ""
	written, err := json.Marshal(lease)
	require.NoError(t, err)
	assert.Contains(t, string(written), `"holderIdentity":""`)
	assert.Empty(t, parse(t, string(written)).Holder)
}

func TestZeroFieldsOfALeaseAreOmitted(t *testing.T) {
	lease := parse(t, foreign)
	lease.DurationSeconds, lease.RenewTime, lease.AcquireTime = 0, time.Time{}, time.Time{}
	lease.Labels, lease.Annotations = nil, nil
	written, err := json.Marshal(lease)
	require.NoError(t, err)
	// The API server refuses a zero duration, and a zero time must not be
	// written.
	for _, key := range []string{"leaseDurationSeconds", "renewTime", "acquireTime", "labels", "annotations"} {
		assert.NotContains(t, string(written), key)
	}
}

func TestLeaseThatWasNeverReadIsEncodedCompletely(t *testing.T) {
	written, err := json.Marshal(&Lease{
		Name: "n", Namespace: "ns", UID: "u", ResourceVersion: "1", Holder: "h", DurationSeconds: 30,
		RenewTime: time.Unix(1, 0),
	})
	require.NoError(t, err)
	assert.JSONEq(t, `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease",
		"metadata":{"name":"n","namespace":"ns","uid":"u","resourceVersion":"1"},
		"spec":{"holderIdentity":"h","leaseDurationSeconds":30,"leaseTransitions":0,
			"renewTime":"1970-01-01T00:00:01.000000Z"}}`, string(written))
}

func TestChangeOfAClonedLeaseLeavesOriginalUnchanged(t *testing.T) {
	lease := parse(t, foreign)
	clone := lease.Clone()
	clone.Annotations["other"], clone.Labels["app"], clone.Holder = "changed", "changed", "changed"
	_, err := json.Marshal(clone)
	require.NoError(t, err)
	written, err := json.Marshal(lease)
	require.NoError(t, err)
	assert.JSONEq(t, replace(t, foreign, "05:04:05.700000+02:00", "03:04:05.700000Z"), string(written))
}

// Clones share the JSON object that the Lease was read from, so encoding a clone
// must not change that object.
func TestConcurrentEncodingLeavesTheLeaseUnchanged(t *testing.T) {
	lease := parse(t, foreign)
	var writers sync.WaitGroup
	for range 8 {
		clone := lease.Clone()
		clone.RenewTime = time.Time{}
		writers.Go(func() {
			for range 100 {
				_, err := json.Marshal(clone)
				assert.NoError(t, err)
			}
		})
	}
	writers.Wait()
	written, err := json.Marshal(lease)
	require.NoError(t, err)
	assert.JSONEq(t, replace(t, foreign, "05:04:05.700000+02:00", "03:04:05.700000Z"), string(written))
}

func TestNullLeaseFieldsAreReadAsAbsent(t *testing.T) {
	lease := parse(t, `{"metadata":{"name":"n","uid":"u","resourceVersion":"1","annotations":null},
		"spec":{"holderIdentity":null,"renewTime":null,"leaseDurationSeconds":null}}`)
	assert.Empty(t, lease.Holder)
	assert.True(t, lease.RenewTime.IsZero())
	lease.Holder = "h"
	_, err := json.Marshal(lease)
	require.NoError(t, err)
}

func TestJSONKeysOfALeaseAreCaseSensitive(t *testing.T) {
	lease := parse(t, `{"metadata":{"name":"n","uid":"u","resourceVersion":"1","UID":"x"},
		"spec":{"HolderIdentity":"somebody"}}`)
	assert.Equal(t, "u", lease.UID)
	assert.Empty(t, lease.Holder)
}

func TestLeaseWithATimeBeyondYear9999IsReadable(t *testing.T) {
	for _, written := range []string{"9999-12-31T23:59:59.000000-01:00", "0000-01-01T00:00:00.000000+01:00"} {
		var instant metav1.MicroTime // the type by which the API server reads and writes the times of a Lease
		require.NoError(t, json.Unmarshal([]byte(strconv.Quote(written)), &instant))
		returned, err := json.Marshal(instant)
		require.NoError(t, err)
		lease := parse(t, `{"metadata":{"name":"n","uid":"u","resourceVersion":"1"},
			"spec":{"holderIdentity":"h","acquireTime":`+string(returned)+`,"renewTime":`+string(returned)+`}}`)
		assert.Equal(t, "h", lease.Holder)
		assert.Zero(t, lease.RenewTime, "%s is no time of RFC 3339", returned)
		sent, err := json.Marshal(lease)
		require.NoError(t, err)
		assert.NotContains(t, string(sent), "renewTime", "the next write repairs the Lease")
	}
}

func TestMalformedLeaseIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":             `<html>`,
		"null":                 `null`,
		"empty":                `{}`,
		"list":                 `[]`,
		"no uid":               `{"metadata":{"name":"n","resourceVersion":"1"}}`,
		"no resource version":  `{"metadata":{"name":"n","uid":"u"}}`,
		"no name":              `{"metadata":{"uid":"u","resourceVersion":"1"}}`,
		"holder is a number":   `{"metadata":{"name":"n","uid":"u","resourceVersion":"1"},"spec":{"holderIdentity":1}}`,
		"duration is a string": `{"metadata":{"name":"n","uid":"u","resourceVersion":"1"},"spec":{"leaseDurationSeconds":"30"}}`,
		"time is a number":     `{"metadata":{"name":"n","uid":"u","resourceVersion":"1"},"spec":{"renewTime":7}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeLease([]byte(text))
			assert.ErrorIs(t, err, ErrMalformed)
		})
	}
}

// FuzzLeaseSurvivesARoundTrip checks that any decoded Lease can be encoded and decoded again
// unchanged.
func FuzzLeaseSurvivesARoundTrip(f *testing.F) {
	f.Add([]byte(foreign))
	f.Add([]byte(`{"metadata":{"name":"n","uid":"u","resourceVersion":"1"}}`))
	f.Add([]byte(`{"metadata":{"name":"n","uid":"u","resourceVersion":"1"},"spec":{"renewTime":"0000-01-01T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		lease, err := decodeLease(data)
		if err != nil {
			return
		}
		written, err := json.Marshal(lease)
		require.NoError(t, err)
		again, err := decodeLease(written)
		require.NoError(t, err, "%s", written)
		rewritten, err := json.Marshal(again)
		require.NoError(t, err)
		require.Equal(t, string(written), string(rewritten))
		require.Equal(t, lease.Holder, again.Holder)
		require.Equal(t, lease.ResourceVersion, again.ResourceVersion)
	})
}
