// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// reports has the values that a [Reconciler] last gave to its functions. The field "behind" is from
// Behind, "lacking" from Shortage, "failed" from Failed, and "paused" from Paused. A map has no
// entry for a value of zero.
type reports struct {
	behind, lacking int
	failed, paused  map[string]int
}

// reported makes the functions Behind, Shortage, Failed and Paused of the Reconciler store their
// values in the result.
func reported(r *Reconciler) *reports {
	all := &reports{failed: map[string]int{}, paused: map[string]int{}}
	store := func(values map[string]int) func(string, string, int) {
		return func(_, label string, value int) {
			if values[label] = value; value == 0 {
				delete(values, label)
			}
		}
	}
	r.Behind = func(_ string, slots int) { all.behind = slots }
	r.Shortage = func(_ string, shards int) { all.lacking = shards }
	r.Failed, r.Paused = store(all.failed), store(all.paused)
	return all
}

func TestEnrollReportsHowManySlotsLackLeases(t *testing.T) {
	w := newWorld(t, deployment(nil, sharding(3)), worker("a", 3))
	r := w.process()
	behind := map[string]int{}
	r.Behind = func(namespace string, slots int) { behind[namespace] = slots }
	w.crashFrom(1)
	_, err := r.Namespace(t.Context(), shop)
	require.ErrorIs(t, err, errCrash)
	assert.Equal(t, map[string]int{shop: 3}, behind)
	w.before = nil
	w.settle(r)
	assert.Equal(t, map[string]int{shop: 0}, behind)
}

// broken fails each call for which the function "fails" returns an error.
type broken struct {
	client.Client
	fails func(object any) error
}

func (b broken) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if err := b.fails(list); err != nil {
		return err
	}
	return b.Client.List(ctx, list, options...)
}

func (b broken) Update(ctx context.Context, object client.Object, options ...client.UpdateOption) error {
	if err := b.fails(object); err != nil {
		return err
	}
	return b.Client.Update(ctx, object, options...)
}

// foreign returns a fault: a Role with the given name that enroll did not make.
func foreign(name string) func(w *world, r *Reconciler) (repair func()) {
	return func(w *world, _ *Reconciler) (repair func()) {
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name}}
		w.create(role)
		return func() { w.remove(role) }
	}
}

// breaking returns a fault: a call fails if the function "is" returns true for the object of the
// call.
func breaking(is func(object any) bool) func(w *world, r *Reconciler) (repair func()) {
	return func(_ *world, r *Reconciler) (repair func()) {
		whole := r.Client
		r.Client = broken{Client: whole, fails: func(object any) error {
			if is(object) {
				return errCrash
			}
			return nil
		}}
		return func() { r.Client = whole }
	}
}

func TestEnrollReportsEachStepThatFails(t *testing.T) {
	for step, fault := range map[string]func(w *world, r *Reconciler) (repair func()){
		"slots":      foreign(RoleName("till")),
		"conditions": foreign(ConditionRoleName("till")),
		"variables":  foreign(VariableRoleName("till")),
		"stamps": breaking(func(object any) bool {
			lease, ok := object.(*coordinationv1.Lease)
			return ok && lease.Annotations[api.StampAnnotation] != ""
		}),
		"hints": func(w *world, r *Reconciler) (repair func()) {
			single := deployment(singleton, singleton)
			single.Name = "single"
			w.create(single)
			w.create(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
				Namespace: shop, Name: "next.singleton.deployment.single", Labels: map[string]string{api.ManagedLabel: managed},
			}})
			return breaking(func(object any) bool {
				lease, ok := object.(*coordinationv1.Lease)
				return ok && lease.Annotations[api.AloneAnnotation] != ""
			})(w, r)
		},
		"read": breaking(func(object any) bool { _, ok := object.(*corev1.PodList); return ok }),
	} {
		t.Run(step, func(t *testing.T) {
			pod := after(worker("a", 3), "lock.x")
			pod.Annotations[api.SlotsAnnotation] += ",variable.hits"
			w := newWorld(t, deployment(nil, sharding(3)), pod)
			r := w.process()
			all := reported(r)
			repair := fault(w, r)
			var err error
			for range 10 {
				_, err = r.Namespace(t.Context(), shop)
			}
			require.Error(t, err)
			assert.Equal(t, map[string]int{step: 1}, all.failed)
			repair()
			w.settle(r)
			assert.Empty(t, all.failed)
		})
	}
}

func TestEnrollReportsNoFailureAfterAWriteConflict(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	r := w.process()
	all := reported(r)
	w.before = func(int) error { return apierrors.NewConflict(schema.GroupResource{}, "lock.x", errCrash) }
	_, err := r.Namespace(t.Context(), shop)
	require.Error(t, err)
	assert.Empty(t, all.failed)
}

func TestEnrollCountsSlotsForEachTypeOfPause(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.a,lock.b,lock.c,lock.d,lock.e"))
	r := w.process()
	all := reported(r)
	w.settle(r)
	for slot, pause := range map[string]api.Pause{"lock.a": api.PauseHold, "lock.b": api.PauseStop, "lock.c": api.PauseRecover, "lock.d": "unknown"} {
		was := w.lease(slot)
		w.pause(slot, pause)
		assert.False(t, sameLease(was, w.lease(slot)), "enroll sees the pause at once")
	}
	w.pause(api.NextLease("lock.e"), api.PauseHold)
	w.settle(r)
	assert.Equal(t, map[string]int{"hold": 2, "stop": 1, "recover": 1}, all.paused)
	w.pause("lock.c", "")
	w.settle(r)
	assert.Equal(t, map[string]int{"hold": 2, "stop": 1}, all.paused)
}

// pause writes a pause into a Lease, or removes the pause if the argument "pause" is empty.
func (w *world) pause(name string, pause api.Pause) {
	w.t.Helper()
	lease := w.lease(name)
	require.NotNil(w.t, lease)
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	if lease.Annotations[api.PausedAnnotation] = string(pause); pause == "" {
		delete(lease.Annotations, api.PausedAnnotation)
	}
	require.NoError(w.t, w.server.Update(w.t.Context(), lease))
}

func TestEnrollReportsNothingAboutADeletedNamespace(t *testing.T) {
	w := newWorld(t, deployment(nil, sharding(3)), worker("a", 3))
	r := w.process()
	all := reported(r)
	w.settle(r)
	w.pause(api.ShardLease(web, 0), api.PauseRecover)
	w.create(gated("b", "another", "lock.x"))
	w.crashFrom(1)
	_, err := r.Namespace(t.Context(), shop)
	require.ErrorIs(t, err, errCrash)
	require.Equal(t, &reports{behind: 1, lacking: 2, failed: map[string]int{"slots": 1}, paused: map[string]int{"recover": 1}}, all)
	w.before = nil
	require.NoError(t, w.server.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}))
	_, err = r.Namespace(t.Context(), shop)
	require.NoError(t, err)
	assert.Equal(t, &reports{failed: map[string]int{}, paused: map[string]int{}}, all)
}
