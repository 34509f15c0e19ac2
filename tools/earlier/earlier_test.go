// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/agent/courier"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/tools/render"
)

// files returns the parts of an archive of the earlier version, by name.
func files(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	all, err := txtar.ParseFile(filepath.Join("testdata", "v0.1.0", archive))
	require.NoError(t, err)
	parts := map[string][]byte{}
	for _, f := range all.Files {
		parts[f.Name] = f.Data
	}
	require.NotEmpty(t, parts)
	return parts
}

// A desk of one version is connected to a shim of the other version only if an image's tag moves
// while a pod lives. Then each end must read each frame of the other end, with the same meaning.
func TestOrdersAndMessagesOfOlderReleasesDecodeUnchanged(t *testing.T) {
	for name, frame := range files(t, "frames.txtar") {
		frame = bytes.TrimSpace(frame)
		var read any
		if strings.HasPrefix(name, "order-") {
			order, err := gate.DecodeOrder(frame)
			require.NoError(t, err, name)
			read = order
		} else {
			state, ran, err := gate.DecodeMessage(frame)
			require.NoError(t, err, name)
			message := gate.Message{State: &state, Ran: ran}
			if ran != nil {
				message.State = nil
			}
			read = message
		}
		again, err := gate.Encode(read)
		require.NoError(t, err)
		assert.Equal(t, string(frame), string(again), name)
	}
}

// recordOf reads a Lease of the earlier version as an agent of today does.
func recordOf(t *testing.T, name string) lease.Record {
	t.Helper()
	l := new(kube.Lease)
	require.NoError(t, json.Unmarshal(files(t, "leases.txtar")["lease-"+name+".json"], l))
	return courier.RecordOf(l)
}

func TestAgentsRespectLeasesWrittenByOlderReleases(t *testing.T) {
	const seen = time.Hour
	for name, want := range map[string]struct {
		holder  string
		free    time.Duration
		serving bool
	}{
		"unknown":   {"unknown", seen + 30*time.Second, false},
		"acquired":  {"a_u", seen + 30*time.Second, true},
		"renewed":   {"a_u", seen + 30*time.Second, true},
		"serving":   {"a_u", seen + 30*time.Second, true},
		"taken":     {"b_u", seen + 30*time.Second, true},
		"over-held": {"old_u", seen + 30*time.Second, false},
		"released":  {"", seen, false},
	} {
		r := recordOf(t, name)
		assert.Equal(t, want.holder, r.Holder, name)
		assert.Equal(t, want.serving, !r.Profile.Serving.IsZero(), name)
		var view lease.Observer
		view.Read(seen, r)
		free, known := view.FreeAt(0)
		assert.True(t, known, name)
		assert.Equal(t, want.free, free, name)
		assert.Equal(t, api.IsIdentity(want.holder), r.Hold != "" && r.BootID != "", "%s: a holder names its hold and boot", name)
		self := lease.Self{Identity: want.holder, BootID: r.BootID}
		assert.Equal(t, api.IsIdentity(want.holder), self.Holds(r, r.Hold), name)
		assert.Equal(t, api.IsIdentity(want.holder), lease.Self{Identity: want.holder, BootID: "another"}.Rebooted(r), name)
	}
}

// An agent of the earlier version leaves the annotations of the previous hold in the Lease. An
// agent of this version must not take these annotations for facts about the present hold.
func TestAgentIgnoresStaleAnnotationsFromEarlierAgentVersion(t *testing.T) {
	r := recordOf(t, "over-held")
	assert.Empty(t, r.Profile.Job, "the job of a holder that is gone")
	assert.Empty(t, r.Profile.Leaving)
	assert.Empty(t, r.Profile.Leave)
	assert.NotEqual(t, r.Hold, r.Yield.Hold, "the yield names a hold that is over")
	assert.NotEqual(t, r.Hold, turn.Parse(r.Rollout).Hold, "the rollout names a hold that is over")
	assert.Equal(t, "10.0.0.9", r.Profile.Address)
	assert.Equal(t, api.PauseHold, r.Paused, "a person's pause counts, although the earlier agent took the slot")
}

// A pod of the earlier webhook still counts as gated, and the arguments of its agent and its shims
// keep their meaning.
func TestPodsOfOlderReleasesStillCountAsGated(t *testing.T) {
	gates, shims := 0, 0
	for name, text := range files(t, "pods.txtar") {
		if !strings.HasSuffix(name, "/patched.yaml") || name == "marks-kept/patched.yaml" { // written by hand
			continue
		}
		var pod corev1.Pod
		require.NoError(t, yaml.Unmarshal(text, &pod))
		gates++
		assert.True(t, podspec.HasGate(&pod.Spec), name)
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			if c.Name == api.AgentContainer {
				recalled := api.RecallRunArgs(c.Args)
				assert.Equal(t, pod.Annotations[api.SlotsAnnotation], strings.Join(recalled.Slots, ","), name)
				assert.Equal(t, c.Args, recalled.Args(), "%s: each argument means the same", name)
			}
			if api.IsShim(c.Command) {
				shims++
				assert.Equal(t, c.Command[1:], api.RecallExecArgs(c.Command).Args(), name)
			}
		}
	}
	assert.Greater(t, gates, 40)
	assert.Greater(t, shims, 40)
}

// key identifies an object.
func key(o *unstructured.Unstructured) string {
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}

// fixed are the fields that the API server lets nobody change.
var fixed = map[string][][]string{
	"Deployment":         {{"spec", "selector"}},
	"ClusterRoleBinding": {{"roleRef"}},
	"RoleBinding":        {{"roleRef"}},
	"Service":            {{"spec", "clusterIP"}},
}

// An object of the earlier version that this version lacks would stay after the upgrade. If an old
// policy stayed, that policy could refuse objects of the new webhook.
func TestUpgradeReplacesEachObjectOfTheOlderRelease(t *testing.T) {
	now := map[string]*unstructured.Unstructured{}
	objects, err := render.Objects(render.Settings{Manifests: "../../manifests"})
	require.NoError(t, err)
	for _, object := range objects {
		now[key(object)] = object
	}
	text, err := os.ReadFile(filepath.Join("testdata", "v0.1.0", "manifests.yaml"))
	require.NoError(t, err)
	documents := strings.Split(string(text), "\n---\n")
	require.Greater(t, len(documents), 20)
	for _, document := range documents {
		before := new(unstructured.Unstructured)
		require.NoError(t, yaml.Unmarshal([]byte(document), &before.Object))
		after := now[key(before)]
		if !assert.NotNil(t, after, key(before)) {
			continue
		}
		for _, path := range fixed[before.GetKind()] {
			was, _, err := unstructured.NestedFieldNoCopy(before.Object, path...)
			require.NoError(t, err)
			is, _, err := unstructured.NestedFieldNoCopy(after.Object, path...)
			require.NoError(t, err)
			assert.Equal(t, was, is, "%s: %v cannot change in place", key(before), path)
		}
	}
}
