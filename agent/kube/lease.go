// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// Lease is a coordination.k8s.io/v1 Lease. Lease keeps the fields that it does
// not declare (owner references, finalizers, strategy, future fields) and writes
// them back unchanged, except for managedFields.
type Lease struct {
	Name            string
	Namespace       string
	UID             string
	ResourceVersion string
	Labels          map[string]string
	Annotations     map[string]string

	// Holder is holderIdentity; it is empty if the Lease is released.
	Holder          string
	DurationSeconds int
	AcquireTime     time.Time
	RenewTime       time.Time
	Transitions     int

	// raw, metadata and spec contain the object as it was read. No method changes them, so
	// clones share them.
	raw, metadata, spec object
}

// Clone returns a copy that can be changed without changing the original.
func (l *Lease) Clone() *Lease {
	clone := *l
	clone.Labels = maps.Clone(l.Labels)
	clone.Annotations = maps.Clone(l.Annotations)
	return &clone
}

// UnmarshalJSON decodes a Lease from the API server.
func (l *Lease) UnmarshalJSON(data []byte) error {
	var lease Lease
	r := reader{of: "lease"}
	lease.raw = r.whole(data)
	r.read(lease.raw, "metadata", &lease.metadata)
	r.read(lease.raw, "spec", &lease.spec)
	r.read(lease.metadata, "name", &lease.Name)
	r.read(lease.metadata, "namespace", &lease.Namespace)
	r.read(lease.metadata, "uid", &lease.UID)
	r.read(lease.metadata, "resourceVersion", &lease.ResourceVersion)
	r.read(lease.metadata, "labels", &lease.Labels)
	r.read(lease.metadata, "annotations", &lease.Annotations)
	r.read(lease.spec, "holderIdentity", &lease.Holder)
	r.read(lease.spec, "leaseDurationSeconds", &lease.DurationSeconds)
	r.readTime(lease.spec, "acquireTime", &lease.AcquireTime)
	r.readTime(lease.spec, "renewTime", &lease.RenewTime)
	r.read(lease.spec, "leaseTransitions", &lease.Transitions)
	if r.err != nil {
		return r.err
	}
	*l = lease
	return nil
}

// MarshalJSON encodes the object as it was read, but with the present values of the fields of l.
// Like client-go, MarshalJSON writes an empty holderIdentity into a released Lease.
func (l *Lease) MarshalJSON() ([]byte, error) {
	w := writer{}
	metadata := w.metadata(l.metadata, map[string]any{
		"name":            unlessZero(l.Name),
		"namespace":       unlessZero(l.Namespace),
		"uid":             unlessZero(l.UID),
		"resourceVersion": unlessZero(l.ResourceVersion),
		"labels":          unlessEmpty(l.Labels),
		"annotations":     unlessEmpty(l.Annotations),
	})
	spec := w.over(l.spec, map[string]any{
		"holderIdentity":       l.Holder,
		"leaseDurationSeconds": unlessZero(l.DurationSeconds),
		"acquireTime":          unlessNever(l.AcquireTime),
		"renewTime":            unlessNever(l.RenewTime),
		"leaseTransitions":     l.Transitions,
	})
	whole := w.over(l.raw, map[string]any{
		"apiVersion": "coordination.k8s.io/v1",
		"kind":       "Lease",
		"metadata":   metadata,
		"spec":       spec,
	})
	if w.err != nil {
		return nil, fmt.Errorf("lease: %w", w.err)
	}
	return json.Marshal(whole)
}

// decodeLease decodes a Lease from the API server. A Lease without a name, a uid or a
// resourceVersion is an error, because the agent could not write it.
func decodeLease(data []byte) (*Lease, error) {
	lease := new(Lease)
	if err := lease.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if lease.Name == "" || lease.UID == "" || lease.ResourceVersion == "" {
		return nil, fmt.Errorf("%w: lease without name, uid or resource version", ErrMalformed)
	}
	return lease, nil
}
