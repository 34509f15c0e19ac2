// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/listing"
)

// podsWithSlots returns n pods of one account, each with a slot of its own.
func podsWithSlots(n int) []client.Object {
	var pods []client.Object
	for i := range n {
		pods = append(pods, gated("pod-"+strconv.Itoa(i), "till", "lock."+strconv.Itoa(i)))
	}
	return pods
}

func TestEnrollAllocatesMemoryInProportionToSlots(t *testing.T) {
	allocations := func(n int) float64 {
		w := newWorld(t, podsWithSlots(n)...)
		r := w.process()
		w.settle(r)
		return testing.AllocsPerRun(1, func() {
			_, err := r.Namespace(t.Context(), shop)
			require.NoError(t, err)
		})
	}
	few, many := allocations(50), allocations(500)
	assert.Less(t, many/few, 12.0, "%v and %v allocations for 50 and 500 slots", few, many)
}

func TestEnrollsRequestsGrowInProportionToNewSlots(t *testing.T) {
	for _, n := range []int{10, 100, step.MaxSlotsPerRole} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			w := newWorld(t, podsWithSlots(n)...)
			r := w.process()
			w.settle(r)
			assert.Equal(t, map[string]int{
				"create Lease": 2 * n, // each slot has a next Lease
				"update Lease": n,     // enroll frees the slot's own Lease
				"list Role":    2, "create Role": 1, "create RoleBinding": 1,
			}, w.requests)
			assert.Zero(t, w.returned, "the list of Roles was empty")

			clear(w.requests)
			w.settle(r)
			w.settle(w.process())
			assert.Empty(t, w.requests, "enroll sent a request in a steady state")

			w.create(gated("new", "till", "lock.new"))
			w.settle(r)
			assert.Equal(t, 2, w.requests["create Lease"])
			assert.LessOrEqual(t, sum(w.requests), 7)
		})
	}
}

func TestEnrollsRequestsGrowInProportionToSweptSlots(t *testing.T) {
	for _, n := range []int{10, 100, step.MaxSlotsPerRole} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			pods := podsWithSlots(n)
			w := newWorld(t, pods...)
			r := w.process()
			w.settle(r)
			for _, pod := range pods {
				w.remove(pod)
			}
			w.settle(r)
			w.now = w.now.Add(time.Hour)
			clear(w.requests)
			w.returned = 0
			w.settle(r)
			assert.Equal(t, map[string]int{
				"list Pod": 1, "list Role": 1, "delete Lease": 2 * n, "delete RoleBinding": 1, "delete Role": 1,
			}, w.requests)
			assert.Equal(t, 1, w.returned)
		})
	}
}

func sum(requests map[string]int) int {
	total := 0
	for n := range maps.Values(requests) {
		total += n
	}
	return total
}

func TestEnrollListsUngatedPodsOncePerNamespace(t *testing.T) {
	var objects []client.Object
	for i := range 50 {
		d := deployment(singleton, singleton)
		d.Name = "biller-" + strconv.Itoa(i)
		d.Spec.Selector.MatchLabels["app"] = d.Name
		objects = append(objects, d, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: d.Name, Labels: map[string]string{"app": d.Name}, Annotations: singleton,
		}})
	}
	w := newWorld(t, objects...)
	w.settle(w.process())
	assert.Equal(t, 1, w.requests["list PartialObjectMetadata"])
	assert.Len(t, w.events, 50)
}

func TestRecreatedUngatedWorkloadGetsANewEvent(t *testing.T) {
	d := deployment(singleton, nil)
	w := newWorld(t, d)
	r := w.process()
	w.settle(r)
	require.Len(t, w.events, 1)
	w.remove(d)
	again := deployment(singleton, nil)
	w.create(again)
	w.settle(r)
	assert.Len(t, w.events, 2)
	w.remove(again)
	w.settle(r)
	assert.Empty(t, r.notifier.notGated.all, "enroll remembers a deleted workload")
}

// A single answer with all pods could exceed the webhook's memory limit.
func TestEnrollListsPodsPageByPage(t *testing.T) {
	bare := gated("pod-3", "till", "")
	bare.Annotations = nil
	w := newWorld(t, append(podsWithSlots(3), bare, gated("pod-4", "biller", "lock.4"))...)
	r := w.process()
	var pages []int64
	r.Reader = interceptor.NewClient(w.server, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, into client.ObjectList, options ...client.ListOption) error {
			var o client.ListOptions
			o.ApplyOptions(options)
			pages = append(pages, o.Limit)
			var all corev1.PodList
			if err := c.List(ctx, &all, options...); err != nil {
				return err
			}
			from, _ := strconv.Atoi(o.Continue)
			page := corev1.PodList{Items: all.Items[from:min(from+2, len(all.Items))]}
			if from+2 < len(all.Items) {
				page.Continue = strconv.Itoa(from + 2)
			}
			raw, err := json.Marshal(page)
			require.NoError(t, err)
			return json.Unmarshal(raw, into)
		},
	})
	live, err := storeOf(r).livePods(t.Context(), shop)
	require.NoError(t, err)
	assert.Equal(t, []int64{listing.PerPage, listing.PerPage, listing.PerPage}, pages)
	assert.ElementsMatch(t, []string{"lock.0", "lock.1", "lock.2", "lock.4"}, slices.Collect(maps.Keys(live)))
	assert.Equal(t, map[string]string{"biller": "biller"}, live["lock.4"].Accounts)
}

// Each event costs a snapshot of the namespace, so an irrelevant update must not
// be an event.
func TestEnrollActsOnlyOnUpdatesThatChangeClaims(t *testing.T) {
	change := func(object client.Object, by func()) event.UpdateEvent {
		object.SetResourceVersion("1")
		before := object.DeepCopyObject().(client.Object)
		by()
		object.SetResourceVersion("2")
		w := &world{t: t}
		return event.UpdateEvent{ObjectOld: w.inCache(before), ObjectNew: w.inCache(object)}
	}
	pod := func() *corev1.Pod {
		pod := gated("a", "till", "lock.x")
		pod.Status.Phase = corev1.PodPending
		return pod
	}
	running, ready, ended, longer, deleted := pod(), pod(), pod(), pod(), pod()
	waits, met, replaced := waiting("a", "till", "lock.a"), waiting("a", "till", "lock.a"), waiting("a", "till", "lock.a")
	scaled, moved, claimed, lost := deployment(singleton, nil), deployment(singleton, nil), deployment(nil, nil), deployment(singleton, nil)
	foreign, awaiting := deployment(nil, nil), deployment(nil, nil)
	renewed := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{api.ManagedLabel: managed}}}
	scaled.Spec.Replicas = new(int32(3))
	single := deployment(singleton, nil)
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Annotations: singleton}}
	tests := map[string]struct {
		update event.UpdateEvent
		event  bool
	}{
		"a pod runs":              {change(running, func() { running.Status.Phase = corev1.PodRunning }), false},
		"a pod is Ready":          {change(ready, func() { ready.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady}} }), false},
		"a pod is deleted":        {change(deleted, func() { deleted.DeletionTimestamp = new(metav1.Now()) }), false},
		"a pod ends":              {change(ended, func() { ended.Status.Phase = corev1.PodFailed }), true},
		"a pod claims for longer": {change(longer, func() { lasting(longer, "2m") }), true},
		"a pod waits":             {change(waits, func() { waits.Status.Phase = corev1.PodPending }), false},
		"a condition was met": {change(met, func() {
			met.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: api.AfterContainer, Ready: true}}
		}), false},
		"a pod with other conditions follows": {change(replaced, func() { replaced.Spec = waiting("a", "till", "lock.b").Spec }), true},
		"a workload is scaled": {change(scaled, func() {
			scaled.Spec.Replicas, scaled.Status.Replicas, scaled.Generation = new(int32(5)), 3, 2
			scaled.Annotations = map[string]string{api.SingletonAnnotation: "true", "deployment.kubernetes.io/revision": "2"}
		}), false},
		"a second replica is declared":    {change(single, func() { single.Spec.Replicas = new(int32(2)) }), true},
		"a workload changes its account":  {change(moved, func() { moved.Spec.Template.Spec.ServiceAccountName = "biller" }), true},
		"a workload begins to wait":       {change(awaiting, func() { awaiting.Annotations = map[string]string{api.AfterAnnotation: "lock.a"} }), true},
		"a workload begins to claim":      {change(claimed, func() { claimed.Annotations = singleton }), true},
		"a workload stops claiming":       {change(lost, func() { lost.Annotations = nil }), true},
		"an unannotated workload changes": {change(foreign, func() { foreign.Spec.Template.Spec.ServiceAccountName = "biller" }), false},
		"a StatefulSet is scaled":         {change(set, func() { set.Status.Replicas = 2 }), false},
		"an agent renews":                 {change(renewed, func() { renewed.Spec.HolderIdentity = new("a_1") }), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, w := range watched() {
				if sameKind(w.kind, test.update.ObjectNew) {
					assert.Equal(t, test.event, w.changes.Update(test.update))
				}
			}
		})
	}
}

func TestRelabelledOrDeletedNamespaceIsReconciled(t *testing.T) {
	before := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}
	annotated, labelled, deleted := before.DeepCopy(), before.DeepCopy(), before.DeepCopy()
	annotated.Annotations = map[string]string{"example.com/seen": "today"}
	labelled.Labels = map[string]string{api.InjectionLabel: api.InjectionEnabled}
	deleted.DeletionTimestamp = new(metav1.Now())
	assert.True(t, sameNamespace(before, annotated))
	assert.False(t, sameNamespace(before, labelled))
	assert.False(t, sameNamespace(before, deleted))
}
