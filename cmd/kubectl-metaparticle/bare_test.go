// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
)

const (
	biller1  = "pod/old-1 runs without a gate, although Deployment/biller claims " + slot
	biller2  = "pod/old-1, pod/old-2 run without a gate, although Deployment/biller claims " + slot
	gateThem = "kubectl rollout restart -n shop deployment/biller replaces them by gated pods (kubectl metaparticle explain -n shop deployment/biller tells more)"
)

// ungated returns the Deployment biller, which was annotated after its pods had been made.
func ungated() []client.Object {
	return together(deployment(claim, claim), slotLease(slot, "", nil), plainPod("old-1", nil), plainPod("old-2", nil))
}

func TestPauseWithStopRefusesPodsWithoutAGate(t *testing.T) {
	locks := &appsv1.StatefulSet{ObjectMeta: meta("db", map[string]string{api.LockAnnotation: "a,b"})}
	lone := &corev1.Pod{ObjectMeta: owned(meta("db-0", nil), "apps/v1", "StatefulSet", "db"), Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	ended := edited(plainPod("ended", nil), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	deleted := edited(plainPod("deleted", nil), func(p *corev1.Pod) {
		p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: noon}, []string{"a/b"}
	})
	optedOut := map[string]string{api.SingletonAnnotation: "true", api.InjectAnnotation: "false"}
	for name, c := range map[string]struct {
		there   []client.Object
		target  string
		refused string
	}{
		"no pod has a gate":  {ungated(), "deployment/biller", biller2 + ", and a pause does not stop them; " + gateThem},
		"by the slot's name": {ungated(), slot, biller2 + ", and a pause does not stop them; " + gateThem},
		"beside a holder":    {append(team(nil), plainPod("old-1", nil)), "deployment/biller", biller1 + ", and a pause does not stop them; " + gateThem},
		"beside the pod":     {append(team(nil), plainPod("old-1", nil)), "pod/a", biller1 + ", and a pause does not stop them; " + gateThem},
		"of another workload": {together(slotLease("lock.a", "", nil), locks, lone), "lock/a", "pod/db-0 runs without a gate, although StatefulSet/db claims lock.a, " +
			"and a pause does not stop them; kubectl rollout restart -n shop statefulset/db replaces them by gated pods (kubectl metaparticle explain -n shop statefulset/db tells more)"},
		"another lock":         {together(slotLease("lock.c", "", nil), locks, lone), "lock/c", ""},
		"pods that have ended": {together(deployment(claim, claim), slotLease(slot, "", nil), ended, deleted), "deployment/biller", ""},
		"a workload opted out": {together(deployment(optedOut, nil), slotLease(slot, "", nil), plainPod("old-1", nil)), slot, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newByHand(c.there...)
			code := b.pause(t, pausing{pause: api.PauseStop, timeout: time.Second}, c.target)
			if c.refused == "" {
				assert.Equal(t, exitOK, code, b.err.String())
				return
			}
			assert.Equal(t, exitRefused, code)
			assert.Equal(t, "refused: "+c.refused+"\n", b.err.String())
			assert.Empty(t, b.out.String())
			for _, l := range []string{slot, "lock.a"} {
				if l == slot && c.target != "lock/a" || l != slot && c.target == "lock/a" {
					assert.NotContains(t, b.lease(t, l).Annotations, api.PausedAnnotation)
				}
			}
		})
	}
}

// A pause, a resume or a yield can be right while such pods run, but must not seem to reach them.
func TestCommandsNameThePodsThatTheyDoNotReach(t *testing.T) {
	b := newByHand(ungated()...)
	assert.Equal(t, exitOK, b.pause(t, pausing{pause: api.PauseHold}, "deployment/biller"))
	assert.Equal(t, slot+": paused; nobody holds\n", b.out.String())
	assert.Equal(t, "note: "+biller2+"; "+gateThem+"\n", b.err.String())
	b.err.Reset()
	assert.Equal(t, exitOK, b.pause(t, pausing{}, "deployment/biller"))
	assert.Equal(t, "note: "+biller2+"; "+gateThem+"\n", b.err.String())
	b.err.Reset()
	assert.Equal(t, exitRefused, b.yield(t, yielding{}, "deployment/biller"))
	assert.Equal(t, "refused: nobody holds "+slot+": there is nothing to yield; "+biller2+"; "+gateThem+"\n", b.err.String())

	synctest.Test(t, func(t *testing.T) {
		b := newByHand(append(team(nil), plainPod("old-1", nil))...)
		b.after(t, time.Second, slot, "b")
		assert.Equal(t, exitOK, b.yield(t, yielding{}, "deployment/biller"))
		assert.Equal(t, "note: "+biller1+"; "+gateThem+"\n", b.err.String())
	})
}

func TestCommandsAcceptTheNamesThatStatusPrints(t *testing.T) {
	all := append(team(nil), slotLease("semaphore.pool.0", "", nil), slotLease("semaphore.pool.1", "", nil),
		slotLease("rwlock.catalog.intent", "", nil), slotLease("rwlock.catalog.0", "", nil))
	for target, paused := range map[string][]string{
		slot: {slot}, "lease/" + slot: {slot}, "leases.coordination.k8s.io/" + slot: {slot},
		"semaphore.pool.1": {"semaphore.pool.1"},
		"rwlock.catalog.0": {"rwlock.catalog.0", "rwlock.catalog.intent"}, "rwlock.catalog": {"rwlock.catalog.0", "rwlock.catalog.intent"},
	} {
		t.Run(target, func(t *testing.T) {
			b := newByHand(all...)
			s, err := findSlots(t.Context(), cluster{WithWatch: b}, "shop", []string{target})
			assert.NoError(t, err)
			for _, slot := range paused {
				assert.Contains(t, s.slots, slot)
			}
			assert.Len(t, s.leases, len(paused))
		})
	}
	synctest.Test(t, func(t *testing.T) {
		b := newByHand(all...)
		b.after(t, time.Second, slot, "b")
		assert.Equal(t, exitOK, b.yield(t, yielding{}, slot), b.err.String())
	})
}

func TestStatusCommandRefusesNamesThatNothingHas(t *testing.T) {
	for _, c := range []struct {
		namespace, target, said string
	}{
		{"shop", "lock/nope", "lock/nope has no Lease in the namespace shop, and no pod claims it: check the name, and the namespace (-n)"},
		{"shop", "lock.nope", "lock.nope has no Lease in the namespace shop, and no pod claims it: check the name, and the namespace (-n)"},
		{"shop", "semaphore/nope", "semaphore/nope has no Lease in the namespace shop: check the name, and the namespace (-n)"},
		{"shop", "deployment/nope", `deployment/nope is not in the namespace shop: check the name, and the namespace (-n): read nope: deployments.apps "nope" not found`},
		{"shop", "pod/nope", `pod/nope is not in the namespace shop: check the name, and the namespace (-n): read pod: pods "nope" not found`},
		{"nope", "", "there is no namespace nope: check the name (-n)"},
		{"nope", "lock/a", "there is no namespace nope: check the name (-n)"},
	} {
		for _, output := range []string{"", "json"} {
			b := newByHand(team(nil)...)
			var args []string
			if c.target != "" {
				args = []string{c.target}
			}
			assert.Equal(t, exitNot, b.status(t, screen{output: output}, c.namespace, args...), c.target)
			assert.Equal(t, c.said+"\n", b.err.String())
			assert.Empty(t, b.out.String())
		}
	}
	b := newByHand(team(nil)...)
	assert.Equal(t, exitNot, b.status(t, screen{watch: true}, "nope"))
}

// A script must not have to know which command it asks.
func TestNameThatNothingHasIsOneExitCode(t *testing.T) {
	for target, said := range map[string]string{
		"deployment/nope": "deployment/nope is not in the namespace shop: check the name, and the namespace (-n): ",
		"lock/nope":       "lock/nope has no Lease in the namespace shop",
		"semaphore/nope":  "semaphore/nope has no Lease in the namespace shop",
	} {
		b := newByHand(append(team(nil), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})...)
		for name, run := range map[string]func() int{
			"status": func() int { return b.status(t, screen{}, "shop", target) },
			"yield":  func() int { return b.yield(t, yielding{}, target) },
			"pause":  func() int { return b.pause(t, pausing{pause: api.PauseHold}, target) },
			"explain": func() int {
				kind, named, _ := strings.Cut(target, "/")
				if kind != "deployment" {
					return b.status(t, screen{}, "shop", target) // explain refuses these names before it asks the cluster
				}
				return b.exitCode(t, func(std stdio, c cluster) (int, error) {
					return explain(t.Context(), &explainer{cluster: c, namespace: "shop", now: noon}, std.out, "", "Deployment", named)
				})
			},
		} {
			if name == "pause" && target != "deployment/nope" {
				continue // the Lease of a lock can come later
			}
			b.err.Reset()
			assert.Equal(t, exitNot, run(), "%s %s", name, target)
			assert.True(t, strings.HasPrefix(b.err.String(), said), "%s: %s", name, b.err.String())
		}
	}
}

func TestStatusCommandCountsUngatedAndRefusedPods(t *testing.T) {
	there := ungated()
	d := there[0].(*appsv1.Deployment)
	d.Status.Replicas = 2
	d.Status.Conditions = []appsv1.DeploymentCondition{{
		Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate",
		Message: `admission webhook "pods.metaparticle.io" denied the request: ImageUnreadable: app: no such host`,
	}}
	b := newByHand(there...)
	assert.Equal(t, exitNot, b.status(t, screen{words: true}, "shop"))
	const shown = slot + ": singleton, nobody holds, 0 standbys\n" +
		"  critical: 2 pods of Deployment/biller run the application without a gate, whoever holds " + slot + "\n" +
		"    run: kubectl rollout restart -n shop deployment/biller\n" +
		"  warning: pods of Deployment/biller are refused: ImageUnreadable: app: no such host\n" +
		"    run: kubectl metaparticle explain -n shop deployment/biller\n"
	assert.Equal(t, shown, b.out.String())
	assert.Empty(t, b.err.String())
	b.out.Reset()
	assert.Equal(t, exitNot, b.status(t, screen{words: true}, "shop", "deployment/biller"))
	assert.Equal(t, shown, b.out.String())
	b.out.Reset()
	assert.Equal(t, exitNot, b.status(t, screen{output: "json"}, "shop"))
	assert.Contains(t, b.out.String(), `"ungated": 2`)

	synctest.Test(t, func(t *testing.T) {
		b := newByHand(there...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := screen{words: true, std: stdio{out: &b.out, err: &b.err}, watch: true, now: func() time.Time { return noon }}.run(ctx, cluster{WithWatch: b}, "shop", nil)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Contains(t, b.out.String(), shown)
	})
}

func TestStatusCommandSaysWhichPodsItCannotCount(t *testing.T) {
	b := newByHand(team(nil)...)
	b.WithWatch = interceptor.NewClient(b.WithWatch, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if _, ok := list.(*appsv1.StatefulSetList); ok {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "statefulsets"}, "", nil)
			}
			return c.List(ctx, list, options...)
		},
	})
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop"))
	assert.Contains(t, b.out.String(), "held by a")
	assert.Contains(t, b.err.String(), "note: ungated or refused pods of statefulsets do not count: read statefulsets: ")
}
