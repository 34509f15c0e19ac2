// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
)

// restored is a fake API server with one revision for all objects, like etcd. The fake agents obey
// each request to yield, unless the slot is paused.
type restored struct {
	*byHand
	t  *testing.T
	mu sync.Mutex
	// objects stores the objects. This store has no revision that is common to all objects.
	objects client.WithWatch
	// revision is the number of the API server's last write. The field "tokens" has, by slot, the
	// token with which a pod acquired the slot after the holder's yield.
	revision uint64
	tokens   map[string]uint64
	// deaf is a slot whose holder ignores requests to yield.
	deaf string
	// early reports that a pod could acquire a slot before the revision was above the floor.
	early bool
	floor uint64
	// fence is the token of the fence that the Variable "total" records.
	fence int64
}

func newRestored(t *testing.T, revision uint64, there ...client.Object) *restored {
	w := &restored{byHand: newByHand(there...), t: t, revision: revision, tokens: map[string]uint64{}}
	w.objects = w.WithWatch
	w.WithWatch = interceptor.NewClient(w.WithWatch, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if variables, ok := list.(*unstructured.UnstructuredList); ok {
				v := unstructured.Unstructured{Object: map[string]any{}}
				v.SetGroupVersionKind(schema.GroupVersionKind{Group: "metaparticle.io", Version: "v1alpha1", Kind: "Variable"})
				v.SetNamespace("shop")
				v.SetName("total")
				require.NoError(t, unstructured.SetNestedField(v.Object, w.fence, "spec", "fence", "token"))
				variables.Items = append(variables.Items, v)
				return nil
			}
			err := c.List(ctx, list, options...)
			w.mu.Lock()
			defer w.mu.Unlock()
			list.SetResourceVersion(strconv.FormatUint(w.revision, 10))
			return err
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if strings.HasPrefix(object.GetName(), "metaparticle-recover-") {
				// The command raises the revision by many writes of such an object. One write
				// counts as ten revisions here, so the test needs fewer writes.
				w.revision += 10
				w.early = w.early || w.acquirable()
				object.SetResourceVersion(strconv.FormatUint(w.revision, 10))
				return nil
			}
			w.revision++
			if err := c.Patch(ctx, object, patch, options...); err != nil {
				return err
			}
			w.obey(object.(*coordinationv1.Lease))
			return nil
		},
	})
	return w
}

// acquirable reports whether a standby could acquire a slot too early, because the slot's Lease has
// no pause. An acquisition is too early while the field "revision" is not above the field "floor".
func (w *restored) acquirable() bool {
	var list coordinationv1.LeaseList
	require.NoError(w.t, w.objects.List(w.t.Context(), &list, client.HasLabels{api.ManagedLabel}))
	for _, l := range list.Items {
		if api.IsSlot(l.Name) && api.RunOf(l.Name) == "" && api.PauseOf(l.Annotations) == "" && w.revision <= w.floor {
			return true
		}
	}
	return false
}

// obey lets the holder of a Lease yield, and the next pod acquire.
func (w *restored) obey(l *coordinationv1.Lease) {
	yield := api.ParseYield(l.Annotations[api.YieldAnnotation])
	if yield.Hold == "" || yield.Hold != l.Annotations[api.HoldAnnotation] || api.PauseOf(l.Annotations) != "" || l.Name == w.deaf {
		return
	}
	name := l.Name
	time.AfterFunc(3*time.Second, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.revision++
		w.tokens[name] = w.revision
		l := new(coordinationv1.Lease)
		assert.NoError(w.t, w.objects.Get(context.Background(), client.ObjectKey{Namespace: "shop", Name: name}, l))
		l.Annotations = map[string]string{api.HoldAnnotation: "next", api.TokenAnnotation: strconv.FormatUint(w.revision, 10)}
		assert.NoError(w.t, w.objects.Update(context.Background(), l))
	})
}

func (w *restored) recover(floor uint64, change ...func(r *recovering)) int {
	w.floor = floor
	return w.exitCode(w.t, func(std stdio, c cluster) (int, error) {
		r := recovering{cluster: cluster{WithWatch: w.WithWatch}, std: std, floor: floor, timeout: time.Minute}
		for _, f := range change {
			f(&r)
		}
		return r.run(w.t.Context())
	})
}

func TestRecoverCommandRaisesTokensAboveTheGivenMinimum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const barrier = "barrier.warm.0b1c2d3e-0000-4000-8000-0123456789ab.0"
		w := newRestored(t, 5000,
			slotLease("lock.a", "a", nil), slotLease("lock.free", "", nil), slotLease("lock.later", "b", map[string]string{api.TokenAnnotation: "9100"}),
			slotLease("lock.new", "c", map[string]string{api.TokenAnnotation: ""}), slotLease(barrier, "d", nil),
			slotLease("lock.person", "", map[string]string{api.PausedAnnotation: "hold"}))
		require.Equal(t, exitOK, w.recover(9050), w.err.String())
		assert.False(t, w.early, "no slot could be acquired under the floor")
		for _, slot := range []string{"lock.a", "lock.later", "lock.new"} {
			assert.Greater(t, w.tokens[slot], uint64(9100), "%s: a token above the revision raises the floor", slot)
		}
		assert.Len(t, w.tokens, 3)
		for _, slot := range []string{"lock.a", "lock.free", "lock.later", "lock.new", barrier} {
			assert.NotContains(t, w.lease(t, slot).Annotations, api.PausedAnnotation, slot)
		}
		assert.Equal(t, "hold", w.lease(t, "lock.person").Annotations[api.PausedAnnotation], "a person's pause stays")
		assert.NotContains(t, w.lease(t, barrier).Annotations, api.YieldAnnotation)
		assert.Contains(t, w.out.String(), "revision 5000, floor 9100; 5 slots, 3 of them held with a token up to the floor\n")
		assert.Contains(t, w.out.String(), "each holder has a token above the floor\n")
		var list coordinationv1.LeaseList
		require.NoError(t, w.List(t.Context(), &list, client.InNamespace(recoverHome)))
		assert.Empty(t, list.Items, "the command deletes its objects")

		w.out.Reset()
		require.Equal(t, exitOK, w.recover(9050), "a second recovery changes nothing")
		assert.NotContains(t, w.out.String(), "writing")
	})
}

func TestRecoverCommandReportsHoldersThatDoNotYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.b", "b", map[string]string{api.PausedAnnotation: "hold"}),
			slotLease("lock.dead", "dead", map[string]string{api.HoldAnnotation: ""}))
		w.deaf = "lock.a"
		time.AfterFunc(45*time.Second, func() {
			for _, alive := range []string{"lock.a", "lock.b"} {
				l := w.lease(t, alive)
				l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
				assert.NoError(t, w.objects.Update(t.Context(), l))
			}
		})
		assert.Equal(t, exitUnreached, w.recover(6000))
		assert.Equal(t, "lock.a in shop: a still holds with token 4711: delete the pod\n"+
			"lock.b in shop: b still holds with token 4711: the slot is paused, and the holder yields at the end of the pause\n"+
			"lock.dead in shop: dead still holds with token 4711: the holder has not renewed for longer than the lease duration; the next holder gets a greater token\n",
			w.err.String())
	})
}

func TestDryRunAndRefusedRecoveryWriteNothing(t *testing.T) {
	for name, c := range map[string]struct {
		revision, floor uint64
		fence           int64
		dryRun          bool
		code            int
		says            string
	}{
		"no floor":              {5000, 0, 0, false, exitRefused, "name the floor (--floor), from before the restore"},
		"too far":               {5000, 3_000_000, 0, false, exitRefused, "the floor is 2995000 revisions away"},
		"a Variable is too far": {5000, 6000, 4_000_000, false, exitRefused, "the floor, the token of the Variable total in shop, is 3995000 revisions away"},
		"dry run":               {5000, 6000, 0, true, exitOK, "revision 5000, floor 6000; 1 slots, 1 of them held"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newRestored(t, c.revision, slotLease("lock.a", "a", nil))
			w.fence = c.fence
			assert.Equal(t, c.code, w.recover(c.floor, func(r *recovering) { r.dryRun = c.dryRun }))
			assert.Contains(t, w.out.String()+w.err.String(), c.says)
			assert.Equal(t, c.revision, w.revision)
		})
	}
}

func TestRecoverCommandPausesNothingIfFirstWriteFails(t *testing.T) {
	w := newRestored(t, 5000, slotLease("lock.a", "a", nil))
	w.WithWatch = interceptor.NewClient(w.WithWatch, interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, recoverHome)
		},
	})
	assert.Equal(t, exitError, w.recover(6000))
	assert.Contains(t, w.err.String(), "write into the namespace metaparticle-system")
	assert.NotContains(t, w.lease(t, "lock.a").Annotations, api.PausedAnnotation, "no slot stays paused if the command cannot write")
}

// meddle calls the function f before each patch of the Lease with the name. If f returns an error,
// the patch fails with this error.
func (w *restored) meddle(name string, f func() error) {
	w.WithWatch = interceptor.NewClient(w.WithWatch, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if object.GetName() == name {
				if err := f(); err != nil {
					return err
				}
			}
			return c.Patch(ctx, object, patch, options...)
		},
	})
}

// pauseByHand pauses the slot, as a person would.
func (w *restored) pauseByHand(name string, pause api.Pause) error {
	l := w.lease(w.t, name)
	l.Annotations = map[string]string{api.PausedAnnotation: string(pause)}
	return w.objects.Update(w.t.Context(), l)
}

func TestRecoverCommandKeepsPausesThatAppearMeanwhile(t *testing.T) {
	for name, patch := range map[string]int{"before the pause": 1, "before its end": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRestored(t, 5000, slotLease("lock.free", "", nil))
				patches := 0
				w.meddle("lock.free", func() error {
					if patches++; patches == patch {
						return w.pauseByHand("lock.free", api.PauseStop)
					}
					return nil
				})
				require.Equal(t, exitOK, w.recover(6000), w.err.String())
				assert.Equal(t, "stop", w.lease(t, "lock.free").Annotations[api.PausedAnnotation])
			})
		})
	}
}

func TestRecoverCommandResumesOtherSlotsAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "", nil), slotLease("lock.b", "", nil))
		patches := 0
		w.meddle("lock.a", func() error {
			if patches++; patches == 2 {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "leases"}, "lock.a", nil)
			}
			return nil
		})
		assert.Equal(t, exitError, w.recover(6000))
		assert.NotContains(t, w.lease(t, "lock.b").Annotations, api.PausedAnnotation)
		assert.Contains(t, w.err.String(), "patch lease lock.a in shop")
		assert.Contains(t, w.err.String(), "slots may stay paused: repeat the command with --floor 6000")

		assert.Equal(t, exitRefused, w.recover(0))
		assert.Contains(t, w.err.String(), "slots are still paused by an earlier recover")
		assert.Equal(t, exitOK, w.recover(6000), w.err.String())
		assert.NotContains(t, w.lease(t, "lock.a").Annotations, api.PausedAnnotation)
	})
}

func TestRecoverCommandContinuesDespiteDeletedScratchLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil))
		deleted := false
		w.meddle("metaparticle-recover-0", func() error {
			if !deleted {
				deleted = true
				return apierrors.NewNotFound(schema.GroupResource{Resource: "leases"}, "metaparticle-recover-0")
			}
			return nil
		})
		require.Equal(t, exitOK, w.recover(6000), w.err.String())
		assert.True(t, deleted)
		assert.NotContains(t, w.lease(t, "lock.a").Annotations, api.PausedAnnotation)
	})
}
