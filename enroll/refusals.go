// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"errors"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// EnrollRefused is the reason of the Event on a workload or pod for which the API server refuses a
// write of enroll, so that the pods wait.
const EnrollRefused = "EnrollRefused"

// refusalNotice is the time after which a refusal causes an Event. Quotas refuse everything until their
// controller has counted for the first time, and an upgrade may replace the webhook before its rights.
const refusalNotice = 5 * time.Second

// maxRefusal bounds the bytes of the API server's text in an Event, whose whole note may have 1024.
const maxRefusal = 800

// refusal is a refused write, and a pod or workload that waits for the written object.
type refusal struct {
	first client.Object
	err   error
}

// refusals collects the refusals of one reconciliation.
type refusals []refusal

// add adds an error of a write, unless another attempt can succeed although nobody changes anything.
func (r *refusals) add(err error, first client.Object) {
	if err != nil && first != nil && forGood(err) {
		*r = append(*r, refusal{first, err})
	}
}

// forGood reports whether the API server will refuse a write until a person changes a quota, a policy,
// a webhook, the rights of enroll, or an object that has the name.
func forGood(err error) bool {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return false
	case errors.Is(err, ErrForeign), errors.Is(err, errFinalizers):
		return true
	}
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

// key identifies the fault: the object that waits, and the kind of the objects that are refused. A
// workload with a hundred slots gets one Event about a quota of Leases.
func (r refusal) key() string {
	kind := ""
	if status := apierrors.APIStatus(nil); errors.As(r.err, &status) && status.Status().Details != nil {
		kind = status.Status().Details.Kind
	}
	return string(r.first.GetUID()) + "/" + kind
}

// notifyRefused writes an Event about each refusal that has lasted for refusalNotice. The result is the
// time until the next Event, or zero if no Event is to come.
func (n *spells) notifyRefused(events Recorder, namespace string, all refusals, now time.Time) (again time.Duration) {
	by := map[string]refusal{}
	for _, r := range all {
		if _, known := by[r.key()]; !known {
			by[r.key()] = r
		}
	}
	due, again := n.observe(namespace, slices.Sorted(maps.Keys(by)), refusalNotice, now)
	if events == nil {
		return again
	}
	for _, key := range due {
		events.Eventf(by[key].first, nil, corev1.EventTypeWarning, EnrollRefused, "Enroll",
			"The API server refuses what the pods need to start, and they wait until it accepts this: %s", api.Shortened(by[key].err.Error(), maxRefusal))
	}
	return again
}

// spells remembers, by namespace, since when each fault has lasted, and which faults have an Event.
type spells struct{ byNamespace[string, spell] }

// spell is the time of one fault without interruption.
type spell struct {
	since    time.Time
	notified bool
}

// observe replaces the faults of a namespace. The result "due" has the
// faults that have lasted for the time "notice", each once. The result "again" is the time until the
// next fault is due, or zero.
func (n *spells) observe(namespace string, faults []string, notice time.Duration, now time.Time) (due []string, again time.Duration) {
	before, after := n.in(namespace), map[string]spell{}
	for _, fault := range faults {
		s, known := before[fault]
		if !known {
			s.since = now
		}
		if left := s.since.Add(notice).Sub(now); left > 0 {
			again = step.Sooner(again, left)
		} else if !s.notified {
			s.notified = true
			due = append(due, fault)
		}
		after[fault] = s
	}
	n.set(namespace, after)
	return due, again
}
