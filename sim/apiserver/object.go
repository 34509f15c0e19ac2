// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Object has all states that the object of one kind and name ever had. The last state is the
// current one.
type Object struct {
	kind, name string
	versions   []Version
}

// Version is one state of an object. A Version without a body records that the object
// does not exist.
type Version struct {
	// At is the instant at which the server stored the state.
	At time.Duration
	// UID and RV are the uid and the resourceVersion of the object.
	UID string
	RV  int64
	// Body is the decoded JSON of the object, and Raw the encoded one.
	Body map[string]any
	Raw  []byte
	// canon is the body without the resourceVersion, for comparison.
	canon []byte
	// Lease is the decoded body, if the object is a Lease.
	Lease *Lease
}

// Last returns the current state.
func (o *Object) Last() Version {
	if len(o.versions) == 0 {
		return Version{}
	}
	return o.versions[len(o.versions)-1]
}

// AsOf returns the state at the instant. The state has no body if the object did not exist.
func (o *Object) AsOf(at time.Duration) Version {
	for _, v := range slices.Backward(o.versions) {
		if v.At <= at {
			return v
		}
	}
	return Version{}
}

// Since returns the state of the object at the instant, and all later states.
func (o *Object) Since(at time.Duration) []Version {
	later, _ := slices.BinarySearchFunc(o.versions, at+1, func(v Version, at time.Duration) int { return cmp.Compare(v.At, at) })
	return o.versions[max(0, later-1):]
}

// Lease is a Lease as the server stores it. Checks and stories read this type, and not the agent's, so
// that they stay as they are when the agent changes.
type Lease struct {
	LeaseMeta `json:"metadata"`
	LeaseSpec `json:"spec"`
}

// LeaseMeta has the fields of a Lease's metadata.
type LeaseMeta struct {
	Name            string            `json:"name"`
	ResourceVersion string            `json:"resourceVersion"`
	Labels          map[string]string `json:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// LeaseSpec has the fields of a Lease's spec.
type LeaseSpec struct {
	Holder          string    `json:"holderIdentity"` // empty if the Lease is released
	DurationSeconds int       `json:"leaseDurationSeconds,omitempty"`
	AcquireTime     MicroTime `json:"acquireTime,omitzero"`
	RenewTime       MicroTime `json:"renewTime,omitzero"`
	Transitions     int       `json:"leaseTransitions"`
}

// MicroTime is a time as Kubernetes writes it into a Lease.
type MicroTime struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t MicroTime) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05.000000Z07:00"`)), nil
}

// LeaseFrom decodes the JSON of a Lease.
func LeaseFrom(raw []byte) *Lease {
	l := &Lease{LeaseMeta: LeaseMeta{Labels: map[string]string{}, Annotations: map[string]string{}}}
	engine.Must(json.Unmarshal(raw, l))
	return l
}

// Status returns the error of a client whose request the server answers with an HTTP status.
func Status(code int, reason, message string) error {
	return &kube.StatusError{Code: code, Reason: reason, Message: message}
}

// Decode returns the fields of an object's JSON.
func Decode(raw []byte) map[string]any {
	var body map[string]any
	engine.Must(json.Unmarshal(raw, &body))
	return body
}

// Encode returns the JSON of an object.
func Encode(body any) []byte {
	raw, err := json.Marshal(body)
	engine.Must(err)
	return raw
}

// Metadata returns the metadata of an object. An object without metadata gets empty metadata.
func Metadata(body map[string]any) map[string]any {
	m, ok := body["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		body["metadata"] = m
	}
	return m
}

// Meta returns a field of the metadata as text. Without the field the text is empty.
func Meta(body map[string]any, key string) string {
	value, _ := Metadata(body)[key].(string)
	return value
}

// canonical returns the body without the resourceVersion.
func canonical(body map[string]any) []byte {
	m := Metadata(body)
	rv, ok := m["resourceVersion"]
	delete(m, "resourceVersion")
	raw := Encode(body)
	if ok {
		m["resourceVersion"] = rv
	}
	return raw
}

// labelsOf returns the labels of an object.
func labelsOf(body map[string]any) map[string]string {
	set := map[string]string{}
	if all, ok := Metadata(body)["labels"].(map[string]any); ok {
		for key, value := range all {
			set[key], _ = value.(string)
		}
	}
	return set
}

func text(version int64) string { return strconv.FormatInt(version, 10) }

func number(version string) int64 {
	n, err := strconv.ParseInt(version, 10, 64)
	engine.Must(err)
	return n
}
