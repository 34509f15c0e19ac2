// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestForgetCommandRemovesOneKey(t *testing.T) {
	for name, c := range map[string]struct {
		args      []string
		code      int
		done, out string
		err       string
	}{
		"one of two":  {[]string{"once/schema", "7"}, exitOK, "8", "once.schema: 7 is forgotten\n", ""},
		"not done":    {[]string{"once/schema", "9"}, exitRefused, "7,8", "", "refused: once.schema has no done key 9: name one of 7, 8\n"},
		"no work":     {[]string{"lock/a", "7"}, exitRefused, "7,8", "", "refused: lock/a has no once claim: name the work and its key, as in once/schema 7\n"},
		"other name":  {[]string{"once/seed", "7"}, exitNot, "7,8", "", "there is no Lease once.seed in the namespace shop: check the name, and the namespace (-n)\n"},
		"unnamed one": {[]string{"once/", "7"}, exitError, "7,8", "", "error: \"once/\": write KIND/NAME, as deployment/biller\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newByHand(slotLease("once.schema", "", map[string]string{api.DoneAnnotation: "7,8"}))
			code := b.exitCode(t, func(std stdio, cl cluster) (int, error) { return forget(t.Context(), cl, "shop", c.args, std) })
			assert.Equal(t, c.code, code)
			assert.Equal(t, c.out, b.out.String())
			assert.Equal(t, c.err, b.err.String())
			assert.Equal(t, c.done, b.lease(t, "once.schema").Annotations[api.DoneAnnotation])
		})
	}
	b := newByHand(slotLease("once.schema", "", map[string]string{api.DoneAnnotation: "7"}))
	b.exitCode(t, func(std stdio, cl cluster) (int, error) {
		return forget(t.Context(), cl, "shop", []string{"once/schema", "7"}, std)
	})
	assert.NotContains(t, b.lease(t, "once.schema").Annotations, api.DoneAnnotation)
	b.exitCode(t, func(std stdio, cl cluster) (int, error) {
		return forget(t.Context(), cl, "shop", []string{"once/schema", "7"}, std)
	})
	assert.Equal(t, "refused: once.schema has no done keys: there is nothing to forget\n", b.err.String())
}

func TestForgetCommandRemovesARunFromEachShard(t *testing.T) {
	b := newByHand(slotLease("shards.job.map.0", "", map[string]string{api.DoneAnnotation: "1-a,2-b"}),
		slotLease("shards.job.map.2", "", map[string]string{api.DoneAnnotation: "2-b"}))
	says := func(args ...string) int {
		return b.exitCode(t, func(std stdio, cl cluster) (int, error) { return forget(t.Context(), cl, "shop", args, std) })
	}
	assert.Equal(t, exitOK, says("shards/job.map", "2-b"), b.err.String())
	assert.Equal(t, "1-a", b.lease(t, "shards.job.map.0").Annotations[api.DoneAnnotation])
	assert.NotContains(t, b.lease(t, "shards.job.map.2").Annotations, api.DoneAnnotation)
	assert.Equal(t, exitRefused, says("shards/job.map", "2-b"))
	assert.Equal(t, exitOK, says("shards/job.map.0", "1-a"))
	assert.NotContains(t, b.lease(t, "shards.job.map.0").Annotations, api.DoneAnnotation)
}

func TestForgetCommandAcceptsTheNameOfAWorkload(t *testing.T) {
	b := newByHand(append(deployment(map[string]string{api.OnceAnnotation: "true"}, nil),
		slotLease("once-revision.deployment.biller", "", map[string]string{api.DoneAnnotation: "7,8"}))...)
	code := b.exitCode(t, func(std stdio, cl cluster) (int, error) {
		return forget(t.Context(), cl, "shop", []string{"deployment/biller", "7"}, std)
	})
	assert.Equal(t, exitOK, code, b.err.String())
	assert.Equal(t, "8", b.lease(t, "once-revision.deployment.biller").Annotations[api.DoneAnnotation])
}

const openLease = "barrier.warm.0b1c2d3e-0000-4000-8000-0123456789ab.0"

func TestForgetCommandMakesLaterPodsWaitAtBarrier(t *testing.T) {
	for name, c := range map[string]struct {
		slot   string
		opened string
		code   int
		said   string
	}{
		"open":   {openLease, "3", exitOK, openLease + ": later pods of the Job wait at the barrier again\n"},
		"closed": {openLease, "", exitRefused, "refused: " + openLease + " has no record of an open barrier: there is nothing to forget\n"},
		"absent": {"barrier.x", "3", exitNot, "there is no Lease barrier.x in the namespace shop: check the name, and the namespace (-n)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newByHand(slotLease(openLease, "", map[string]string{api.OpenedAnnotation: c.opened, api.PausedAnnotation: "hold"}))
			code := b.exitCode(t, func(std stdio, cl cluster) (int, error) {
				return forget(t.Context(), cl, "shop", []string{strings.Replace(c.slot, ".", "/", 1)}, std)
			})
			assert.Equal(t, c.code, code)
			assert.Equal(t, c.said, b.out.String()+b.err.String())
			_, open := b.lease(t, openLease).Annotations[api.OpenedAnnotation]
			assert.Equal(t, c.code != exitOK, open)
			assert.Contains(t, b.lease(t, openLease).Annotations, api.PausedAnnotation)
		})
	}
}

func TestStatusCommandShowsOpenBarriersAndArrivals(t *testing.T) {
	second := strings.TrimSuffix(openLease, "0") + "1"
	arrived := slotLease(second, "a", nil)
	delete(arrived.Annotations, api.HoldAnnotation)
	delete(arrived.Annotations, api.ServingAnnotation)
	b := newByHand(slotLease(openLease, "", map[string]string{api.OpenedAnnotation: "2"}), arrived, slotLease("lock.a", "", nil))
	assert.Equal(t, exitOK, b.status(t, screen{words: true}, "shop", "barrier/warm"))
	assert.Contains(t, b.out.String(), openLease+": barrier, nobody holds, open for 2 pods, 0 standbys\n")
	assert.Contains(t, b.out.String(), second+": barrier, held by a, for 10m")
	assert.NotContains(t, b.out.String(), "lock.a")
	assert.NotContains(t, b.out.String(), "gone")
	assert.Equal(t, exitRefused, b.yield(t, yielding{}, "barrier/warm"))
	assert.Contains(t, b.err.String(), "barrier/warm is a barrier, at which pods wait")
	assert.Equal(t, exitNot, b.status(t, screen{words: true}, "shop", "barrier/other"))
}

func TestStatusCommandListsDoneKeysAndWaitingPods(t *testing.T) {
	waits, goesOn, begun := waiting("a", "once.schema"), waiting("b", "once.schema"), waiting("c", "once.schema")
	for pod, key := range map[*corev1.Pod]string{waits: "8", goesOn: "7", begun: "8"} {
		delete(pod.Annotations, api.SingletonAnnotation)
		pod.Annotations[api.OnceAnnotation] = "true"
		pod.Spec.InitContainers[0].Args = []string{api.RunRole, "-once=" + key}
	}
	begun.Spec.Containers[0].Command = []string{"app"}
	begun.Status.Conditions = append(begun.Status.Conditions, corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue})
	b := newByHand([]client.Object{waits, goesOn, begun, slotLease("once.schema", "", map[string]string{api.DoneAnnotation: "6,7"})}...)
	var state objects
	b.exitCode(t, func(_ stdio, cl cluster) (int, error) {
		var err error
		state, _, err = cl.read(t.Context(), "shop")
		return exitOK, err
	})
	all := state.slots(nil, noon)
	if assert.Len(t, all, 1) {
		assert.Equal(t, []string{"6", "7"}, all[0].Done)
		assert.Equal(t, "once", all[0].Kind)
		if assert.Len(t, all[0].Standbys, 1) {
			assert.Equal(t, "a", all[0].Standbys[0].Pod)
		}
	}
}
