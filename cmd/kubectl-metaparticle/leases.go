// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// leases implements elector.Leases with the person's connection to the API server. An unstructured
// object keeps each field that this version does not know.
type leases struct {
	cluster
	namespace string
}

func newLease() *unstructured.Unstructured {
	l := new(unstructured.Unstructured)
	l.SetGroupVersionKind(coordinationv1.SchemeGroupVersion.WithKind("Lease"))
	return l
}

// GetLease implements elector.Leases.
func (l leases) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	read := newLease()
	if err := l.Get(ctx, types.NamespacedName{Namespace: l.namespace, Name: name}, read); err != nil {
		return nil, statusOf(err)
	}
	return leaseOfObject(read)
}

// rolePage has the Role that a CI job needs.
const rolePage = api.Repository + "docs/how-to/lock.md#from-ci-or-by-hand"

// errNotMade means that the API server does not let the person make the Lease of a lock, and that a repetition is in vain.
var errNotMade = errors.New("no pod claims the lock, and you may not make its Lease (" + rolePage + ")")

// createLease makes the Lease of a lock, or returns that of whoever was faster. A holder of an earlier Lease may
// live, because nothing remembers the holds of people. So the new Lease counts as held for its duration.
func (l leases) createLease(ctx context.Context, name string, duration time.Duration) (*kube.Lease, error) {
	now := metav1.NowMicro()
	err := l.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name, Labels: map[string]string{api.ManagedLabel: "true"}},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new(api.UnknownPerson), AcquireTime: &now, RenewTime: &now,
			LeaseDurationSeconds: new(int32(duration / time.Second)),
		},
	})
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
		return l.GetLease(ctx, name)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsNotFound(err): // the last for a namespace
		return nil, fmt.Errorf("%w: %w", errNotMade, err)
	}
	return nil, statusOf(err)
}

// UpdateLease implements elector.Leases.
func (l leases) UpdateLease(ctx context.Context, lease *kube.Lease) (*kube.Lease, error) {
	if lease.UID == "" || lease.ResourceVersion == "" {
		return nil, kube.ErrNoUID
	}
	text, err := lease.MarshalJSON()
	if err != nil {
		return nil, err
	}
	written := newLease()
	if err := written.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	if err := l.Update(ctx, written); err != nil {
		return nil, statusOf(err)
	}
	stored, err := leaseOfObject(written)
	switch {
	case err != nil:
		return nil, err
	case stored.UID != lease.UID:
		return nil, fmt.Errorf("%w: it is about another Lease", kube.ErrMalformed)
	case stored.ResourceVersion == lease.ResourceVersion:
		return nil, kube.ErrUnchanged
	case !stored.RenewTime.Equal(lease.RenewTime.Truncate(time.Microsecond)):
		return nil, fmt.Errorf("%w: it has another renew time than the write", kube.ErrMalformed)
	}
	return stored, nil
}

// WatchLease implements elector.Leases.
func (l leases) WatchLease(ctx context.Context, name, resourceVersion string, fn func(kube.WatchEvent)) error {
	list := new(unstructured.UnstructuredList)
	list.SetGroupVersionKind(coordinationv1.SchemeGroupVersion.WithKind("LeaseList"))
	watching, err := l.Watch(ctx, list, client.InNamespace(l.namespace), &client.ListOptions{
		Namespace: l.namespace, FieldSelector: fields.OneTermEqualSelector("metadata.name", name),
		Raw: &metav1.ListOptions{ResourceVersion: resourceVersion, AllowWatchBookmarks: true},
	})
	if err != nil {
		return statusOf(err)
	}
	defer watching.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, open := <-watching.ResultChan():
			if !open {
				return ctx.Err()
			}
			object, ok := e.Object.(*unstructured.Unstructured)
			switch {
			case !ok:
				return statusOf(apierrors.FromObject(e.Object))
			case object.GetName() != name && e.Type != watch.Bookmark:
				continue
			}
			event := kube.WatchEvent{Type: kube.WatchType(e.Type), ResourceVersion: object.GetResourceVersion()}
			if e.Type != watch.Bookmark {
				if event.Lease, err = leaseOfObject(object); err != nil {
					return err
				}
			}
			fn(event)
		}
	}
}

func leaseOfObject(object *unstructured.Unstructured) (*kube.Lease, error) {
	text, err := object.MarshalJSON()
	if err != nil {
		return nil, err
	}
	lease := new(kube.Lease)
	if err := lease.UnmarshalJSON(text); err != nil {
		return nil, fmt.Errorf("%w: %w", kube.ErrMalformed, err)
	}
	return lease, nil
}

// statusOf returns the error as the agent's client returns it.
func statusOf(err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err
	}
	s := status.Status()
	e := &kube.StatusError{Code: int(s.Code), Reason: string(s.Reason), Message: s.Message}
	if s.Details != nil {
		e.RetryAfter = time.Duration(s.Details.RetryAfterSeconds) * time.Second
	}
	return e
}

// forbids reports whether the API server refuses a write for good: a missing right, or a policy.
func forbids(err error) bool {
	return errors.Is(err, kube.ErrForbidden) || errors.Is(err, kube.ErrUnauthorized)
}
