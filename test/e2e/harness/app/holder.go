// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package app

import (
	"slices"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// Vacant reports whether every process of a record has ended. Call Vacant only while no pod can
// start the application.
func Vacant(s *space.Space, name string) bool {
	s.Helper()
	vacant, err := record.Vacant(s.Dir, name)
	require.NoError(s, err)
	return vacant
}

// HandsOver deletes the holder of an application with a lasting lease, and requires a handover by a
// release. The kubelet may learn of the deletion late. So HandsOver bounds the time from the end of
// the old process to the start of the next, and not the time since the deletion.
func HandsOver(s *space.Space, a App) {
	s.Helper()
	require.Equal(s, lease.Lasting.String(), a.Annotations[api.LeaseDurationAnnotation])
	before := AwaitRunning(s, a, space.StartTimeout)
	DeletePod(s, s.Pod(before.Pod))
	s.Await(space.StartTimeout, a.Name+" runs again", func() bool { return After(s, a, before) != nil })
	VacantFor(s, a, before, lease.Released, a.Name+": by a release")
}

// After returns the process that runs the application now, if that process is not the one in the
// argument "before". Otherwise the result is nil.
func After(s *space.Space, a App, before *record.Process) *record.Process {
	if now := s.Running(a.RecordName()); now != nil && now.ID != before.ID {
		return now
	}
	return nil
}

// VacancyAfter returns the time from the end of a process and all its descendants to the
// next start of the application. If the application has not started again, the result is zero.
func VacancyAfter(s *space.Space, a App, before *record.Process) time.Duration {
	from, until := vacancy(s, a, before)
	return until - from
}

// VacantFor requires that the application has started again, and that the vacancy before
// ([VacancyAfter]) lasted for less than the time "most". The time for which the API server stored no write is added to that time, because a takeover
// needs several writes. No product could keep a fixed bound on a machine that stalls.
func VacantFor(s *space.Space, a App, before *record.Process, most time.Duration, what string) {
	s.Helper()
	from, until := vacancy(s, a, before)
	require.NotZero(s, until, "%s: the application has not started again", what)
	stalled := space.Stalled(time.Now().Add(from - record.Now()))
	assert.Less(s, until-from, most+stalled, "%s; writes stalled for %v", what, stalled)
}

// vacancy returns the end of a process and all its descendants, and the next start of the application.
// If the application has not started again, both are zero.
func vacancy(s *space.Space, a App, before *record.Process) (from, until time.Duration) {
	r := s.Record(a.RecordName())
	next := slices.IndexFunc(r, func(p record.Process) bool { return p.Parent == "" && p.Start > before.Start })
	if next < 0 {
		return 0, 0
	}
	from = before.Start
	for _, p := range r[:next] {
		from = max(from, p.Last)
	}
	return from, r[next].Start
}

// Standby returns the standby of an application of two replicas, or nil.
func Standby(s *space.Space, a App) *corev1.Pod {
	holder := s.Holder(lease.OfDeployment(a.Name))
	for _, pod := range s.Pods(a.Name) {
		if holder != nil && pod.UID != holder.UID && pod.DeletionTimestamp == nil {
			return pod
		}
	}
	return nil
}

// AwaitStandby waits for the standby of an application of two replicas.
func AwaitStandby(s *space.Space, a App) (standby *corev1.Pod) {
	s.Helper()
	s.Await(space.Soon, "a standby of "+a.Name, func() bool {
		standby = Standby(s, a)
		return standby != nil
	})
	return standby
}

// Yields makes the holder yield, and returns the next holder and the number of requests
// to yield. A pod that has yielded competes again after a second. On a busy machine, that
// pod may take its slot again before a standby has seen the release. Then Yields repeats
// the request.
func Yields(s *space.Space, a App) (now *corev1.Pod, asked int) {
	s.Helper()
	slot := lease.OfDeployment(a.Name)
	before := s.AwaitHolder(slot)
	hold := ""
	s.Await(space.StartTimeout, "a handover", func() bool {
		lease := s.Lease(slot) // one read of the Lease gives holder and hold
		if now = s.Named(lease); now != nil && now.UID != before.UID {
			return true
		}
		if now != nil && lease.Annotations[api.HoldAnnotation] != hold {
			hold = lease.Annotations[api.HoldAnnotation]
			kubectl.Must(s, "", "exec", before.Name, "-c", api.AgentContainer, "--", "/agent", "yield")
			asked++
		}
		return false
	})
	return now, asked
}
