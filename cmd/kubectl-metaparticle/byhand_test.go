// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
)

// slotLease returns a Lease that enroll made. The pod holds the Lease, unless the argument "pod"
// is empty.
func slotLease(name, pod string, annotations map[string]string) *coordinationv1.Lease {
	l := leaseOf(pod)
	l.Name, l.UID, l.Labels = name, types.UID(name), map[string]string{api.ManagedLabel: "true"}
	l.Annotations = map[string]string{}
	if pod != "" {
		l.Annotations = map[string]string{
			api.HoldAnnotation: "hold-" + pod, api.TokenAnnotation: "4711",
			api.ServingAnnotation: noon.Add(-9 * time.Minute).Format(time.RFC3339),
		}
	}
	maps.Copy(l.Annotations, annotations)
	return l
}

// waiting returns a standby whose shim runs. The standby claims the given slots, or
// the singleton's slot if none is given.
func waiting(name string, slots ...string) *corev1.Pod {
	p := gatedPod(name, corev1.ConditionTrue, "StandingBy", "a holds it")
	if len(slots) > 0 {
		p.Annotations[api.SlotsAnnotation] = strings.Join(slots, ",")
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
	}
	return p
}

// edited returns the pod after a change.
func edited(p *corev1.Pod, change func(p *corev1.Pod)) *corev1.Pod {
	change(p)
	return p
}

// team returns a Deployment with a holder and two standbys.
func team(annotations map[string]string) []client.Object {
	return together(deployment(claim, claim), slotLease(slot, "a", annotations), waiting("a"), waiting("b"), waiting("c"))
}

// byHand runs commands on a fake API server, and keeps their output.
type byHand struct {
	client.WithWatch
	out, err bytes.Buffer
}

func newByHand(there ...client.Object) *byHand {
	event := func(field func(*corev1.Event) string) client.IndexerFunc {
		return func(o client.Object) []string { return []string{field(o.(*corev1.Event))} }
	}
	if !slices.ContainsFunc(there, func(o client.Object) bool { return o.GetName() == "shop" }) {
		there = append(there, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	}
	return &byHand{WithWatch: fake.NewClientBuilder().WithObjects(there...).
		WithIndex(&corev1.Event{}, "involvedObject.kind", event(func(e *corev1.Event) string { return e.InvolvedObject.Kind })).
		WithIndex(&corev1.Event{}, "reason", event(func(e *corev1.Event) string { return e.Reason })).
		WithIndex(&corev1.Event{}, "source", event(func(e *corev1.Event) string { return e.Source.Component })).Build()}
}

// exitCode runs a command, and returns the exit code that main would return.
func (b *byHand) exitCode(t *testing.T, f func(std stdio, c cluster) (int, error)) int {
	t.Helper()
	code, err := f(stdio{out: &b.out, err: &b.err}, cluster{WithWatch: b})
	return exitCode(code, err, &b.err)
}

func (b *byHand) yield(t *testing.T, y yielding, args ...string) int {
	return b.exitCode(t, func(std stdio, c cluster) (int, error) {
		y.std = std
		return y.run(t.Context(), c, "shop", args)
	})
}

func (b *byHand) pause(t *testing.T, p pausing, args ...string) int {
	return b.exitCode(t, func(std stdio, c cluster) (int, error) {
		p.std = std
		return p.run(t.Context(), c, "shop", args)
	})
}

func (b *byHand) lease(t *testing.T, name string) *coordinationv1.Lease {
	l := new(coordinationv1.Lease)
	require.NoError(t, b.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: name}, l))
	return l
}

// The method "after" changes the Lease when the duration d is over: the pod becomes the holder. If
// the argument "pod" is empty, the Lease is released instead.
func (b *byHand) after(t *testing.T, d time.Duration, name, pod string) {
	time.AfterFunc(d, func() {
		l := b.lease(t, name)
		next := slotLease(name, pod, map[string]string{api.HoldAnnotation: "next"})
		if pod == "" {
			next.Annotations = nil
		}
		l.Annotations, l.Spec = next.Annotations, next.Spec
		assert.NoError(t, b.Update(context.Background(), l))
	})
}

func TestYieldCommandPrintsWhichPodAcquiresTheSlot(t *testing.T) {
	for name, c := range map[string]struct {
		to, next string
		code     int
		out, err string
	}{
		"any standby":     {"", "b", exitOK, slot + ": b holds, 2s after the request\n", ""},
		"the named one":   {"b", "b", exitOK, slot + ": b holds, 2s after the request\n", ""},
		"by its kind":     {"pod/b", "b", exitOK, slot + ": b holds, 2s after the request\n", ""},
		"another":         {"b", "c", exitNot, slot + ": c holds, 2s after the request\n", "b did not take the slot within its head start\n"},
		"the same again":  {"", "a", exitNot, slot + ": a holds, 2s after the request\n", "no other pod took the slot\n"},
		"nobody":          {"", "", exitNot, "", slot + ": a released after 1s, and nobody holds after 1m12s\n"},
		"an agent of old": {"", "deaf", exitNot, "", slot + ": a still holds after 1m12s; it yields when its agent reads the Lease, unless that is of an earlier version\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newByHand(team(nil)...)
				if c.next != "deaf" {
					b.after(t, time.Second, slot, "")
				}
				if c.next != "" && c.next != "deaf" {
					b.after(t, 2*time.Second, slot, c.next)
				}
				code := b.yield(t, yielding{to: strings.TrimPrefix(c.to, "pod/")}, "deployment/biller")
				assert.Equal(t, c.code, code)
				assert.Equal(t, c.out, b.out.String())
				assert.Equal(t, c.err, b.err.String())
			})
		})
	}
}

// A holder serves for the endpoint delay before its application stops.
func TestYieldCommandWaitsForTheEndpointDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := team(nil)
		for _, o := range all {
			if pod, ok := o.(*corev1.Pod); ok {
				metav1.SetMetaDataAnnotation(&pod.ObjectMeta, api.EndpointDelayAnnotation, "4m")
			}
		}
		b := newByHand(all...)
		b.after(t, 5*time.Minute, slot, "b")
		assert.Equal(t, exitOK, b.yield(t, yielding{}, "deployment/biller"), b.err.String())
	})
}

func TestYieldCommandWritesHoldAndSuccessorIntoLease(t *testing.T) {
	for to, want := range map[string]string{"": "hold-a", "b": "hold-a b_b-uid"} {
		synctest.Test(t, func(t *testing.T) {
			b := newByHand(team(nil)...)
			b.yield(t, yielding{to: to, timeout: time.Second}, "deployment/biller")
			assert.Equal(t, want, b.lease(t, slot).Annotations[api.YieldAnnotation])
		})
	}
}

func waitsForItsTurn(p *corev1.Pod) {
	p.Status.Conditions[0].Status = corev1.ConditionFalse
	p.Status.Conditions[0].Reason, p.Status.Conditions[0].Message = api.ReasonWaitsForItsTurn, "turn 2 comes later"
}

// A pod of the old revision takes the slot, unless the command names a pod of the new revision.
func TestYieldCommandSucceedsInAStalledRollout(t *testing.T) {
	for to, next := range map[string]string{"": "c", "b": "b"} {
		synctest.Test(t, func(t *testing.T) {
			b := newByHand(together(deployment(claim, claim), slotLease(slot, "a", nil), waiting("a"), edited(waiting("b"), waitsForItsTurn), waiting("c"))...)
			b.after(t, time.Second, slot, next)
			assert.Equal(t, exitOK, b.yield(t, yielding{to: to}, "deployment/biller"), b.err.String())
		})
	}
}

func TestYieldCommandExplainsEachRefusal(t *testing.T) {
	deleted := func(p *corev1.Pod) {
		p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: noon}, []string{"a/b"}
	}
	two := together(slotLease("semaphore.pool.0", "a", nil), slotLease("semaphore.pool.1", "b", nil), slotLease("semaphore.pool.2", "", nil),
		waiting("a", "semaphore.pool.0", "semaphore.pool.1"), waiting("b", "semaphore.pool.0", "semaphore.pool.1"))
	for name, c := range map[string]struct {
		there  []client.Object
		target string
		to     string
		want   string
	}{
		"nobody holds":      {together(deployment(claim, claim), slotLease(slot, "", nil), waiting("b")), "", "", "nobody holds " + slot + ": there is nothing to yield"},
		"no claim":          {deployment(nil, nil), "", "", "deployment/biller claims no slot in the namespace shop: check the name, and the namespace (-n)"},
		"another elector":   {together(deployment(claim, claim), leaseOf("x"), waiting("b")), "", "", slot + " is held by x_x-uid, which is no agent of a gated pod: let that program release the slot itself"},
		"paused":            {team(map[string]string{api.PausedAnnotation: "hold"}), "", "", slot + " is paused, so no pod would follow: resume it first"},
		"holder is gone":    {together(deployment(claim, claim), slotLease(slot, "x", nil), waiting("b")), "", "", "x, which holds " + slot + ", is gone: no pod acquires the slot until the Lease has not changed for 30s"},
		"holder is deleted": {together(deployment(claim, claim), slotLease(slot, "a", nil), edited(waiting("a"), deleted), waiting("b")), "", "", "a, which holds " + slot + ", is being deleted, and hands over as it ends"},
		"no standby":        {together(deployment(claim, claim), slotLease(slot, "a", nil), waiting("a"), edited(waiting("b"), deleted)), "", "", "no pod stands by for " + slot + ": a would stop, and start again; b is being deleted"},
		"stalled rollout": {together(deployment(claim, claim), slotLease(slot, "a", nil), waiting("a"), edited(waiting("b"), waitsForItsTurn)), "", "",
			"no pod stands by for " + slot + ": a would stop, and start again; b waits for its turn: turn 2 comes later; --to b begins its turn at once"},
		"several hold":       {two, "semaphore/pool", "", "2 pods hold slots of semaphore/pool: name one of pod/a, pod/b"},
		"pod does not hold":  {team(nil), "pod/b", "", "b does not hold " + slot + ": see the holder by kubectl metaparticle status"},
		"pods do not hold":   {team(nil), "pods/b", "", "b does not hold " + slot + ": see the holder by kubectl metaparticle status"},
		"holds another slot": {two, "pod/a", "b", "b cannot hold next: it holds already"},
		"holder itself":      {team(nil), "", "a", "a cannot hold next: it holds already"},
		"not gated":          {append(team(nil), plainPod("d", nil)), "", "d", "d cannot hold next: it is not gated"},
		"being deleted":      {append(team(nil), edited(waiting("d"), deleted)), "", "d", "d cannot hold next: it is being deleted"},
		"another slot":       {append(team(nil), waiting("d", "lock.x")), "", "d", "d cannot hold next: it does not claim " + slot},
		"container crashes": {append(team(nil), edited(waiting("d"), func(p *corev1.Pod) { p.Status.ContainerStatuses = nil })), "", "d",
			"d cannot hold next: it does not wait: its container app does not run"},
		"gate pod": {together(deployment(claim, claim), slotLease(slot, "a", nil), waiting("b"), edited(waiting("a"), func(p *corev1.Pod) {
			p.Annotations[api.GateAnnotation] = "pod"
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: api.WaitContainer})
		})), "", "b", "a has the gate pod: its slot runs out, and any standby takes it; leave out --to"},
		"agent is silent": {append(team(nil), edited(waiting("d"), func(p *corev1.Pod) { p.Status.Conditions = nil })), "", "d",
			"d cannot hold next: it does not wait yet: its agent has said nothing"},
		"earlier child": {append(team(nil), edited(waiting("d"), func(p *corev1.Pod) {
			p.Status.Conditions[0].Reason, p.Status.Conditions[0].Message = api.ReasonChildRunning, "a child has not ended"
		})), "", "d", "d cannot hold next: it does not wait: a child has not ended"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newByHand(c.there...)
			b.WithWatch = interceptor.NewClient(b.WithWatch, interceptor.Funcs{
				Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
					t.Error("a refusal writes nothing")
					return nil
				},
			})
			target := c.target
			if target == "" {
				target = "deployment/biller"
			}
			assert.Equal(t, exitRefused, b.yield(t, yielding{to: c.to}, target))
			assert.Equal(t, "refused: "+c.want+"\n", b.err.String())
			assert.Empty(t, b.out.String())
		})
	}
}

func TestYieldAndPauseCommandsReportMissingRights(t *testing.T) {
	b := newByHand(team(nil)...)
	b.WithWatch = interceptor.NewClient(b.WithWatch, interceptor.Funcs{
		Patch: func(_ context.Context, _ client.WithWatch, o client.Object, _ client.Patch, _ ...client.PatchOption) error {
			return apierrors.NewForbidden(schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}, o.GetName(), nil)
		},
	})
	assert.Equal(t, exitError, b.yield(t, yielding{}, "deployment/biller"))
	assert.Contains(t, b.err.String(), "error: patch lease "+slot)
	assert.Equal(t, exitError, b.pause(t, pausing{pause: api.PauseHold}, "deployment/biller"))
	assert.Equal(t, exitError, b.yield(t, yielding{to: "nobody"}, "deployment/biller"), "no such pod")
}

func TestPauseCommandDoesNotStopTheHolder(t *testing.T) {
	b := newByHand(team(map[string]string{api.YieldAnnotation: "hold-a"})...)
	assert.Equal(t, exitOK, b.pause(t, pausing{pause: api.PauseHold}, "deployment/biller"))
	assert.Equal(t, slot+": paused; a holds, and goes on\n", b.out.String())
	assert.Equal(t, "hold", b.lease(t, slot).Annotations[api.PausedAnnotation])
	assert.NotContains(t, b.lease(t, slot).Annotations, api.YieldAnnotation, "a yield that waits would come as a surprise")

	b.out.Reset()
	assert.Equal(t, exitOK, b.pause(t, pausing{}, "deployment/biller"))
	assert.Equal(t, exitOK, b.pause(t, pausing{}, "deployment/biller"))
	assert.Equal(t, slot+": resumed\n"+slot+": was not paused\n", b.out.String())
	assert.NotContains(t, b.lease(t, slot).Annotations, api.PausedAnnotation)
	assert.Equal(t, "hold-a", b.lease(t, slot).Annotations[api.HoldAnnotation])
}

func TestPauseCommandWithStopFlagAwaitsRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newByHand(team(nil)...)
		b.after(t, 12*time.Second, slot, "")
		assert.Equal(t, exitOK, b.pause(t, pausing{pause: api.PauseStop}, "deployment/biller"))
		assert.Equal(t, slot+": paused; a has stopped, 12s after the request\n", b.out.String())
		b.out.Reset()
		assert.Equal(t, exitOK, b.pause(t, pausing{pause: api.PauseStop}, "deployment/biller"))
		assert.Equal(t, slot+": paused; nobody holds\n", b.out.String())
	})
	synctest.Test(t, func(t *testing.T) {
		b := newByHand(team(nil)...)
		assert.Equal(t, exitNot, b.pause(t, pausing{pause: api.PauseStop}, "deployment/biller"))
		assert.Equal(t, slot+": paused; a still holds after 1m0s, and has not renewed for 1m0s\n", b.err.String())
	})
}

func TestPauseCommandAcceptsNamesOfLocksAndSemaphores(t *testing.T) {
	var there []client.Object
	for _, name := range []string{"lock.nightly", "semaphore.pool.0", "semaphore.pool.10", "semaphore.pool.2", "semaphore.pool.x.0"} {
		there = append(there, slotLease(name, "", nil))
	}
	b := newByHand(there...)
	assert.Equal(t, exitOK, b.pause(t, pausing{pause: api.PauseHold}, "lock/nightly"))
	assert.Equal(t, exitOK, b.pause(t, pausing{pause: api.PauseHold}, "semaphore/pool"))
	assert.Equal(t, `lock.nightly: paused; nobody holds
semaphore.pool.0: paused; nobody holds
semaphore.pool.2: paused; nobody holds
semaphore.pool.10: paused; nobody holds
`, b.out.String())
	assert.Empty(t, b.lease(t, "semaphore.pool.x.0").Annotations)
	assert.Equal(t, exitNot, b.pause(t, pausing{pause: api.PauseHold}, "lock/other"))
	assert.Equal(t, "lock/other has no Lease in the namespace shop, and no pod claims it: check the name, and the namespace (-n)\n", b.err.String())
}

func TestCommandsWaitForPodsWithAHugeGrace(t *testing.T) {
	s := subject{pods: []corev1.Pod{{}, {}}}
	assert.Equal(t, 30*time.Second, s.stopsWithin())
	s.pods[1].Spec.TerminationGracePeriodSeconds = new(int64(math.MaxInt64))
	assert.Greater(t, s.stopsWithin(), 24*time.Hour)
}
