// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// RecordOf returns the record in the Lease.
func RecordOf(l *kube.Lease) lease.Record {
	var serving time.Time
	if text := l.Annotations[api.ServingAnnotation]; api.ServesInHold(text, l.AcquireTime) {
		serving, _ = time.Parse(time.RFC3339, text) // ServesInHold has parsed the text
	}
	// Without a readable revision, the holder counts as a pod that takes no turns.
	revision, _ := api.ParseRevision(l.Annotations[api.RevisionAnnotation])
	leave, leaving := leavingOf(l.Annotations)
	return lease.Record{
		UID:         l.UID,
		Version:     l.ResourceVersion,
		Holder:      l.Holder,
		Duration:    time.Duration(l.DurationSeconds) * time.Second,
		AcquireTime: l.AcquireTime,
		RenewTime:   l.RenewTime,
		Transitions: l.Transitions,
		Hold:        l.Annotations[api.HoldAnnotation],
		Token:       l.Annotations[api.TokenAnnotation],
		BootID:      l.Annotations[api.BootAnnotation],
		Profile: lease.Profile{
			Address:  l.Annotations[api.AddressAnnotation],
			Workload: l.Annotations[api.WorkloadAnnotation],
			Job:      jobOf(l.Annotations),
			Revision: revision,
			Serving:  serving,
			Leaving:  leaving,
			Leave:    leave,
		},
		Supporters: api.ParseSupporters(l.Annotations[api.SupportersAnnotation], l.Holder, l.Annotations[api.HoldAnnotation]),
		Paused:     api.PauseOf(l.Annotations),
		Yield:      api.ParseYield(l.Annotations[api.YieldAnnotation]),
		Stamp:      api.ParseStamp(l.Annotations[api.StampAnnotation]),
		Successor:  l.Annotations[api.SuccessorAnnotation],
		Rollout:    l.Annotations[api.RolloutAnnotation],
		Done:       api.Done(l.Annotations[api.DoneAnnotation]),
		Failures:   api.Failures(l.Annotations[api.FailuresAnnotation]),
	}
}

// leavingOf returns the two words of [api.LeavingAnnotation]: the id of the leave, and the
// successor or [api.LeavingSoon]. Both are empty if the holder does not leave. leavingOf ignores
// the annotation of an earlier hold. An older version of the agent does not know the annotation,
// and keeps the earlier hold's text in the Lease. leavingOf also ignores an id that no agent writes,
// because standbys repeat the id in their offers and in their logs.
func leavingOf(annotations map[string]string) (leave, says string) {
	leave, says, _ = strings.Cut(annotations[api.LeavingAnnotation], " ")
	if hold, _, _ := strings.Cut(leave, "."); hold != annotations[api.HoldAnnotation] || len(leave) > api.LongestLeave {
		return "", ""
	}
	return leave, says
}

// jobOf returns the UID of the Job that owns the holder's pod. jobOf ignores the annotation
// of an earlier hold, as leavingOf does.
func jobOf(annotations map[string]string) string {
	hold, job, _ := strings.Cut(annotations[api.JobAnnotation], " ")
	if hold != annotations[api.HoldAnnotation] {
		return ""
	}
	return job
}

// LeaseOf returns a copy of base that has the values of r, for a write. All other fields stay as
// they are in base. The annotations of the pause and the stamp stay, too, because no agent
// writes them.
func LeaseOf(base *kube.Lease, r lease.Record) *kube.Lease {
	l := base.Clone()
	l.UID, l.ResourceVersion = r.UID, r.Version
	l.Holder = r.Holder
	l.DurationSeconds = int(r.Duration / time.Second)
	l.AcquireTime, l.RenewTime = r.AcquireTime, r.RenewTime
	l.Transitions = r.Transitions
	annotations := maps.Clone(l.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	set := func(key, value string) {
		if value == "" {
			delete(annotations, key)
			return
		}
		annotations[key] = value
	}
	serving := ""
	if !r.Profile.Serving.IsZero() {
		serving = r.Profile.Serving.UTC().Format(time.RFC3339Nano)
	}
	leaving := ""
	if r.Profile.Leaving != "" {
		leaving = r.Profile.Leave + " " + r.Profile.Leaving
	}
	job := ""
	if r.Profile.Job != "" {
		job = r.Hold + " " + r.Profile.Job
	}
	set(api.HoldAnnotation, r.Hold)
	set(api.TokenAnnotation, r.Token)
	set(api.BootAnnotation, r.BootID)
	set(api.AddressAnnotation, r.Profile.Address)
	set(api.WorkloadAnnotation, r.Profile.Workload)
	set(api.JobAnnotation, job)
	set(api.RevisionAnnotation, r.Profile.Revision.String())
	set(api.ServingAnnotation, serving)
	set(api.LeavingAnnotation, leaving)
	set(api.SupportersAnnotation, r.Supporters.Text(r.Holder, r.Hold))
	set(api.YieldAnnotation, r.Yield.String())
	set(api.SuccessorAnnotation, r.Successor)
	set(api.RolloutAnnotation, r.Rollout)
	set(api.DoneAnnotation, string(r.Done))
	set(api.FailuresAnnotation, string(r.Failures))
	l.Annotations = annotations
	return l
}

// answerOf returns the answer to a request in the form that the claim expects.
func answerOf(l *kube.Lease, err error) Answer {
	if err == nil && l != nil {
		return Answer{Record: RecordOf(l)}
	}
	a := Answer{Err: err, Conflict: errors.Is(err, kube.ErrConflict), Missing: errors.Is(err, kube.ErrNotFound), Forbidden: errors.Is(err, kube.ErrForbidden)}
	if status, ok := errors.AsType[*kube.StatusError](err); ok {
		a.RetryAfter = status.RetryAfter
	}
	return a
}
