// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// lease returns a Lease that enroll made. Without a holder the Lease is free.
func lease(slot, holder string, annotations map[string]string) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: slot, Labels: map[string]string{api.ManagedLabel: "true"}, Annotations: annotations,
	}}
	if holder != "" {
		l.Spec.HolderIdentity = new(api.Identity(holder, holder+"-uid"))
		l.Spec.AcquireTime = &metav1.MicroTime{Time: noon.Add(-time.Hour)}
	}
	return l
}

// gated returns a gated pod that claims slots, and started ten minutes before noon.
func gated(name, slots string, change ...func(*corev1.Pod)) *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: name, UID: types.UID(name + "-uid"),
		Labels: map[string]string{api.GatedLabel: api.Gated}, Annotations: map[string]string{api.SlotsAnnotation: slots},
	}}
	p.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, RestartPolicy: &always, Args: []string{"run"}}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Command: []string{api.ShimProgram, "exec"}}}
	p.Status.StartTime = &metav1.Time{Time: noon.Add(-10 * time.Minute)}
	p.Status.Conditions = []corev1.PodCondition{{Type: api.ReadyCondition, Status: corev1.ConditionTrue, Reason: "StandingBy", Message: "a holds it"}}
	for _, c := range change {
		c(p)
	}
	return p
}

// event returns an Event of a pod's agent, some seconds before noon.
func event(seconds int, pod, reason, message string) *corev1.Event {
	e := &corev1.Event{Reason: reason, Message: message, LastTimestamp: metav1.Time{Time: noon.Add(-time.Duration(seconds) * time.Second)}}
	e.Namespace = "shop"
	e.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Name: pod, UID: types.UID(pod + "-uid")}
	return e
}

// shown returns a slot in one line.
func shown(s Slot) string {
	text := s.Slot + " " + s.Kind
	switch h := s.Holder; {
	case s.Missing:
		text += " missing"
	case h == nil:
		text += " free"
	case h.Gone:
		text += " held by " + h.Pod + " (gone)"
	case h.Deleted:
		text += " held by " + h.Pod + " (deleted)"
	default:
		text += " held by " + h.Pod
	}
	for _, p := range s.Standbys {
		text += fmt.Sprintf("; %s waits: %s", p.Pod, p.Reason)
	}
	if !s.Healthy() {
		text += "; unhealthy"
	}
	return text
}

func TestConsoleShowsHolderAndStandbysOfEachSlot(t *testing.T) {
	serving := map[string]string{api.ServingAnnotation: noon.Format(time.RFC3339)}
	ended := func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: noon} }
	silent := func(p *corev1.Pod) { p.Status.Conditions = nil }
	pool := "semaphore.pool.0,semaphore.pool.1"
	for name, c := range map[string]struct {
		state State
		want  []string
	}{
		"nothing": {State{}, nil},
		"held": {State{Leases: []*coordinationv1.Lease{lease("lock.a", "a", serving)}, Pods: []*corev1.Pod{gated("b", "lock.a"), gated("a", "lock.a")}},
			[]string{"lock.a lock held by a; b waits: StandingBy"}},
		"free with a standby": {State{Leases: []*coordinationv1.Lease{lease("lock.a", "", nil)}, Pods: []*corev1.Pod{gated("b", "lock.a")}},
			[]string{"lock.a lock free; b waits: StandingBy; unhealthy"}},
		"free without standbys": {State{Leases: []*coordinationv1.Lease{lease("lock.a", "", nil)}}, []string{"lock.a lock free"}},
		"holder gone":           {State{Leases: []*coordinationv1.Lease{lease("lock.a", "a", serving)}}, []string{"lock.a lock held by a (gone); unhealthy"}},
		"holder deleted": {State{Leases: []*coordinationv1.Lease{lease("lock.a", "a", serving)}, Pods: []*corev1.Pod{gated("a", "lock.a", deleted)}},
			[]string{"lock.a lock held by a (deleted)"}},
		"holder does not serve": {State{Leases: []*coordinationv1.Lease{lease("lock.a", "a", nil)}, Pods: []*corev1.Pod{gated("a", "lock.a")}},
			[]string{"lock.a lock held by a; unhealthy"}},
		"paused": {State{Leases: []*coordinationv1.Lease{lease("lock.a", "", map[string]string{api.PausedAnnotation: "hold"})}, Pods: []*corev1.Pod{gated("b", "lock.a")}},
			[]string{"lock.a lock free; b waits: StandingBy"}},
		"no Lease": {State{Pods: []*corev1.Pod{gated("b", "lock.a", silent)}}, []string{"lock.a lock missing; b waits: Unknown; unhealthy"}},
		"ended pod": {State{Leases: []*coordinationv1.Lease{lease("lock.a", "", nil)}, Pods: []*corev1.Pod{gated("b", "lock.a", ended)}},
			[]string{"lock.a lock free"}},
		"ended pod without a Lease": {State{Pods: []*corev1.Pod{gated("b", "lock.a", ended)}}, nil},
		"semaphore": {State{Leases: []*coordinationv1.Lease{lease("semaphore.pool.1", "a", serving), lease("semaphore.pool.0", "", nil)}, Pods: []*corev1.Pod{gated("a", pool), gated("b", pool)}},
			[]string{"semaphore.pool.0 semaphore free; b waits: StandingBy; unhealthy", "semaphore.pool.1 semaphore held by a; b waits: StandingBy"}},
		"other Leases": {State{Leases: []*coordinationv1.Lease{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "kube-scheduler"}}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, s := range c.state.Slots(nil, 3) {
				lines = append(lines, shown(s))
			}
			assert.Equal(t, c.want, lines)
		})
	}
}

func TestListOfHandoversContainsCauseAndDuration(t *testing.T) {
	const holds, drains, frees = "this pod holds lock.a (token 1), lock.b (token 2)", "draining to hand over lock.a: this pod is being deleted", "lock.a is free again"
	for name, c := range map[string]struct {
		events []*corev1.Event
		want   []string
	}{
		"none":         {nil, nil},
		"first":        {[]*corev1.Event{event(9, "a", api.ReasonAcquired, holds)}, []string{"a from :"}},
		"another slot": {[]*corev1.Event{event(9, "a", api.ReasonAcquired, "this pod holds lock.a.b (token 1)")}, nil},
		"with a cause": {[]*corev1.Event{event(7, "b", api.ReasonAcquired, holds), event(9, "a", "PodDeleted", drains), event(8, "a", api.ReasonReleased, frees)},
			[]string{"b from a: PodDeleted after 1s, " + drains}},
		"without a cause": {[]*corev1.Event{event(9, "a", api.ReasonReleased, frees), event(4, "b", api.ReasonAcquired, holds)}, []string{"b from a: after 5s, "}},
		"a cause in the release": {[]*corev1.Event{event(9, "a", api.ReasonReleased, frees+": the application has failed"), event(4, "b", api.ReasonAcquired, holds)},
			[]string{"b from a: Released after 5s, the application has failed"}},
		"a cause of another pod": {[]*corev1.Event{event(9, "x", "Yielded", drains), event(9, "a", api.ReasonReleased, frees), event(9, "b", api.ReasonAcquired, holds)}, []string{"b from a: after 0s, "}},
		"control characters":     {[]*corev1.Event{event(9, "a", "Yielded", "draining\x1b[2J lock.a"), event(9, "a", api.ReasonReleased, frees), event(9, "b", api.ReasonAcquired, holds)}, []string{"b from a: Yielded after 0s, draining?[2J lock.a"}},
		"the last two of three":  {[]*corev1.Event{event(9, "a", api.ReasonAcquired, holds), event(8, "b", api.ReasonAcquired, holds), event(7, "c", api.ReasonAcquired, holds)}, []string{"c after the lease of b:", "b after the lease of a:"}},
		"a loss before an expiry": {[]*corev1.Event{event(20, "a", api.ReasonAcquired, holds), event(12, "a", "Lost", drains), event(9, "b", api.ReasonAcquired, holds)},
			[]string{"b after the lease of a: Lost", "a from :"}},
		"a pod whose own lease expired": {[]*corev1.Event{event(20, "a", api.ReasonAcquired, holds), event(9, "a", api.ReasonAcquired, holds)}, []string{"a after the lease of a:", "a from :"}},
		"an Event about a Job":          {[]*corev1.Event{{Reason: api.ReasonAcquired, Message: holds, InvolvedObject: corev1.ObjectReference{Kind: "Job"}}}, nil},
		"an Event elsewhere":            {[]*corev1.Event{func() *corev1.Event { e := event(9, "a", api.ReasonAcquired, holds); e.Namespace = "other"; return e }()}, nil},
		"a release whose Event is late": {[]*corev1.Event{event(20, "a", api.ReasonAcquired, holds), event(10, "a", "PodDeleted", drains), event(9, "b", api.ReasonAcquired, holds), event(8, "a", api.ReasonReleased, frees)},
			[]string{"b from a: PodDeleted after 0s, " + drains, "a from :"}},
		"a release after an expiry":    {[]*corev1.Event{event(20, "b", api.ReasonAcquired, holds), event(14, "a", api.ReasonReleased, frees)}, []string{"b from :"}},
		"a release by the holder":      {[]*corev1.Event{event(9, "b", api.ReasonAcquired, holds), event(8, "b", api.ReasonReleased, frees)}, []string{"b from :"}},
		"a late and a further release": {[]*corev1.Event{event(9, "b", api.ReasonAcquired, holds), event(9, "a", "x", ""), event(8, "a", api.ReasonReleased, frees), event(7, "b", api.ReasonReleased, frees), event(6, "c", api.ReasonAcquired, holds)}, []string{"c from b: after 1s, ", "b from a: after 0s, "}},
		"a turn that fails at once, and the slot goes back": {
			[]*corev1.Event{event(30, "a", api.ReasonAcquired, holds), event(9, "a", "Yielded", drains), event(9, "a", api.ReasonReleased, frees), event(9, "a", api.ReasonAcquired, "this pod holds lock.a (token 12)"),
				event(9, "b", api.ReasonReleased, frees+": the application has failed"), event(9, "b", api.ReasonAcquired, "this pod holds lock.a (token 9)")},
			[]string{"a from b: Released after 0s, the application has failed", "b from a: Yielded after 0s, " + drains},
		},
		"a hold that is shorter than a second": {
			[]*corev1.Event{event(30, "a", api.ReasonAcquired, holds), event(9, "a", api.ReasonReleased, frees), event(9, "b", api.ReasonReleased, frees+": exit code 1"), event(9, "b", api.ReasonAcquired, holds), event(7, "c", api.ReasonAcquired, holds)},
			[]string{"c from b: Released after 2s, exit code 1", "b from a: after 0s, "},
		},
		"a pod that acquires again": {[]*corev1.Event{event(9, "a", api.ReasonReleased, frees), event(8, "a", api.ReasonAcquired, holds)}, []string{"a from a: after 1s, "}},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, h := range historiesOf(c.events, noon, 2)[types.NamespacedName{Namespace: "shop", Name: "lock.a"}].handovers {
				line := fmt.Sprintf("%s from %s:", h.Pod, h.From)
				if h.Expired {
					line = fmt.Sprintf("%s after the lease of %s:", h.Pod, h.From)
				}
				if h.Reason != "" {
					line += " " + h.Reason
				}
				if h.Seconds != nil {
					line += fmt.Sprintf(" after %.0fs, %s", *h.Seconds, h.Cause)
				}
				lines = append(lines, line)
			}
			assert.Equal(t, c.want, lines)
		})
	}
}

func TestConsoleShowsStandbyWaitingSinceStartOrRelease(t *testing.T) {
	restarted := func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: noon.Add(-time.Minute)}}}}}
	}
	for name, c := range map[string]struct {
		pod    *corev1.Pod
		events []*corev1.Event
		want   time.Duration
	}{
		"start of the pod":         {gated("b", "lock.a"), nil, 10 * time.Minute},
		"start of the shim":        {gated("b", "lock.a", restarted), nil, time.Minute},
		"a later release":          {gated("b", "lock.a", restarted), []*corev1.Event{event(30, "b", api.ReasonReleased, "lock.a is free again")}, 30 * time.Second},
		"an earlier release":       {gated("b", "lock.a", restarted), []*corev1.Event{event(90, "b", api.ReasonReleased, "lock.a is free again")}, time.Minute},
		"a release of another pod": {gated("b", "lock.a"), []*corev1.Event{event(30, "a", api.ReasonReleased, "lock.a is free again")}, 10 * time.Minute},
		"a release of other slots": {gated("b", "lock.a"), []*corev1.Event{event(30, "b", api.ReasonReleased, "lock.b is free again")}, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			slots := State{Leases: []*coordinationv1.Lease{lease("lock.a", "a", nil)}, Pods: []*corev1.Pod{c.pod}, Events: c.events}.Slots([]string{"lock.a"}, 3)
			require.Len(t, slots, 1)
			require.Len(t, slots[0].Standbys, 1)
			require.NotNil(t, slots[0].Standbys[0].WaitsSince)
			assert.Equal(t, c.want, noon.Sub(*slots[0].Standbys[0].WaitsSince))
		})
	}
}

func TestHolderWithoutRenewalsCountsAsSilent(t *testing.T) {
	l := lease("lock.a", "a", nil)
	l.UID, l.Spec.LeaseDurationSeconds = "lock-a", new(int32(30))
	opened := lease("barrier.warm.run.0", "a", nil)
	opened.UID, opened.Spec.LeaseDurationSeconds = "barrier", new(int32(30))
	free := lease("lock.b", "", nil)
	free.UID = "lock-b"
	for name, c := range map[string]struct {
		lease *coordinationv1.Lease
		seen  time.Duration
		want  bool
	}{
		"a recent change":      {l, 14 * time.Second, false},
		"three lost renewals":  {l, 15 * time.Second, true},
		"a pod at its barrier": {opened, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			state := State{Leases: []*coordinationv1.Lease{c.lease}, Now: noon, Seen: map[types.UID]time.Time{c.lease.UID: noon.Add(-c.seen)}}
			assert.Equal(t, c.want, state.Slots(nil, 3)[0].Holder.SilentSince != nil)
		})
	}
	assert.Nil(t, State{Leases: []*coordinationv1.Lease{l}, Now: noon}.Slots(nil, 3)[0].Holder.SilentSince, "the caller saw nothing")
	assert.Nil(t, State{Leases: []*coordinationv1.Lease{free}, Now: noon, Seen: map[types.UID]time.Time{"lock-b": {}}}.Slots(nil, 3)[0].Holder)
}

func TestConsoleShowsNoWaitingTimeOfAProgram(t *testing.T) {
	p := gated("b", "lock.a", func(p *corev1.Pod) { p.Status.Conditions = nil })
	p.Spec.InitContainers[0].Args = []string{api.LocalRole, "-claims=lock/a"}
	slots := State{Pods: []*corev1.Pod{p}}.Slots(nil, 3)
	require.Len(t, slots, 1)
	require.Len(t, slots[0].Standbys, 1)
	assert.True(t, slots[0].Standbys[0].Program)
	assert.Nil(t, slots[0].Standbys[0].WaitsSince)
}

func TestNewHolderCountsAsStartingAtFirst(t *testing.T) {
	held := func(renewed, ago time.Duration, annotations map[string]string) Slot {
		l := lease("lock.a", "a", annotations)
		l.Spec.RenewTime = &metav1.MicroTime{Time: l.Spec.AcquireTime.Add(renewed)}
		l.Spec.LeaseDurationSeconds = new(int32(30))
		return State{Leases: []*coordinationv1.Lease{l}, Pods: []*corev1.Pod{gated("a", "lock.a")}, Now: l.Spec.RenewTime.Add(ago)}.Slots(nil, 3)[0]
	}
	for _, c := range []struct {
		renewed, ago time.Duration
		starting     bool
	}{
		{-time.Second, 0, false}, {0, 0, true}, {9 * time.Second, 0, true}, {10 * time.Second, 0, false}, {time.Hour, 0, false},
		{0, -time.Second, true}, {0, 29 * time.Second, true}, {0, 30 * time.Second, false}, {0, 48 * time.Hour, false},
	} {
		s := held(c.renewed, c.ago, nil)
		assert.Equal(t, c.starting, s.Holder.Starting, c)
		assert.Equal(t, c.starting, s.Healthy(), c)
	}
	// With a lease of an hour, the holder renews each ten minutes.
	long := lease("lock.a", "a", nil)
	long.Spec.LeaseDurationSeconds = new(int32(3600))
	for renewed, young := range map[time.Duration]bool{0: true, 10 * time.Minute: false} {
		long.Spec.RenewTime = &metav1.MicroTime{Time: long.Spec.AcquireTime.Add(renewed)}
		assert.Equal(t, young, Young(long, long.Spec.RenewTime.Time), renewed)
	}
	serves := held(0, 0, map[string]string{api.ServingAnnotation: noon.Format(time.RFC3339)})
	assert.False(t, serves.Holder.Starting)
	assert.True(t, serves.Healthy())
}

func TestStandbyWithACrashedContainerIsNotReady(t *testing.T) {
	crashed := gated("b", "lock.a", func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "log", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}},
		}
	})
	standby := State{Pods: []*corev1.Pod{crashed}}.Slots(nil, 3)[0].Standbys[0]
	assert.False(t, standby.Ready)
	assert.Equal(t, "a holds it; its container app does not run: CrashLoopBackOff", standby.Message)
}

func TestConsoleCountsStandbyAsReadyBeforeContainersRun(t *testing.T) {
	for _, reason := range []string{"PodInitializing", "ContainerCreating"} {
		beginning := gated("b", "lock.a", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
		})
		standby := State{Pods: []*corev1.Pod{beginning}}.Slots(nil, 3)[0].Standbys[0]
		assert.True(t, standby.Ready, reason)
		assert.Equal(t, "a holds it", standby.Message, reason)
	}
}

func TestStartingHolderIsShownAsStartingDespiteOutage(t *testing.T) {
	l := lease("lock.a", "a", nil)
	l.Spec.RenewTime, l.Spec.LeaseDurationSeconds = &metav1.MicroTime{Time: l.Spec.AcquireTime.Time}, new(int32(30))
	for _, old := range []bool{false, true} {
		state := State{Leases: []*coordinationv1.Lease{l}, Pods: []*corev1.Pod{gated("a", "lock.a")}, Now: noon, Old: old}
		assert.Equal(t, old, state.Slots(nil, 3)[0].Holder.Starting)
	}
}

func TestUnheldSlotWithOnlyDeletedStandbysIsHealthy(t *testing.T) {
	deleted := gated("b", "lock.a", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: noon} })
	s := State{Leases: []*coordinationv1.Lease{lease("lock.a", "", nil)}, Pods: []*corev1.Pod{deleted}}.Slots(nil, 3)[0]
	assert.True(t, s.Standbys[0].Deleted)
	assert.True(t, s.Healthy())
	s = State{Leases: []*coordinationv1.Lease{lease("lock.a", "", nil)}, Pods: []*corev1.Pod{deleted, gated("c", "lock.a")}}.Slots(nil, 3)[0]
	assert.False(t, s.Healthy())
}

// The Events of an hour ago are gone, so only the Lease knows whether a pod held before.
func TestOnlyTheFirstHolderCountsAsFirst(t *testing.T) {
	const holds = "this pod holds lock.a (token 1)"
	acquired := func(pods ...string) (events []*corev1.Event) {
		for i, pod := range pods {
			events = append(events, event(100-i, pod, api.ReasonAcquired, holds))
		}
		return events
	}
	for name, c := range map[string]struct {
		transitions int32
		events      []*corev1.Event
		first       bool
	}{
		"the only holder":              {1, acquired("a"), true},
		"the first of two":             {2, acquired("a", "b"), true},
		"an earlier holder":            {3, acquired("a", "b"), false},
		"a hold that went on":          {1, acquired("a", "a"), true},
		"more than the list has":       {4, acquired("a", "b", "c", "d"), false},
		"a Lease of another program":   {0, acquired("a"), false},
		"a release before it is known": {1, append([]*corev1.Event{event(200, "x", api.ReasonReleased, "lock.a is free again")}, acquired("a")...), false},
	} {
		t.Run(name, func(t *testing.T) {
			l := lease("lock.a", "a", nil)
			l.Spec.LeaseTransitions = &c.transitions
			h := State{Leases: []*coordinationv1.Lease{l}, Events: c.events, Now: noon}.Slots(nil, 3)[0].Handovers
			assert.Equal(t, c.first, h[len(h)-1].First)
		})
	}
}
