// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
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
	"k8s.io/apimachinery/pkg/util/validation/field"
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
		assert.Equal(t, exitNot, w.recover(6000))
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

// full returns the API server's error about a Lease whose annotations have the greatest size.
func full() error {
	return apierrors.NewInvalid(schema.GroupKind{Group: "coordination.k8s.io", Kind: "Lease"}, "lock.full",
		field.ErrorList{field.TooLong(field.NewPath("metadata", "annotations"), "", 262144)})
}

func TestRecoverCommandContinuesDespiteUnchangeableLease(t *testing.T) {
	leases := schema.GroupResource{Resource: "leases"}
	const edit = "kubectl -n shop edit lease lock.full\n"
	for name, c := range map[string]struct {
		failure error
		remedy  string
	}{
		"full":              {full(), edit},
		"full for requests": {apierrors.NewRequestEntityTooLargeError("limit is 3145728"), edit},
		"full for etcd":     {apierrors.NewInternalError(errors.New("etcdserver: request is too large")), edit},
		"full for gRPC":     {apierrors.NewInternalError(errors.New("trying to send message larger than max (2099999 vs. 2097152)")), edit},
		"no right": {apierrors.NewForbidden(leases, "lock.full", errors.New(`User "me" cannot patch resource "leases"`)),
			"get the right to patch Leases in this namespace\n"},
		"no right to read": {apierrors.NewForbidden(leases, "lock.full", errors.New(`User "me" cannot get resource "leases"`)),
			"get the right to read Leases in this namespace\n"},
		"policy": {apierrors.NewForbidden(leases, "lock.full", errors.New(`ValidatingAdmissionPolicy "x" denied request`)),
			"change the policy that refuses the patch\n"},
		"conflicts": {apierrors.NewConflict(leases, "lock.full", errors.New("changed")),
			"kubectl -n shop get lease lock.full -o yaml --show-managed-fields\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.full", "b", nil), slotLease("lock.z", "c", nil))
				w.meddle("lock.full", func() error { return c.failure })
				assert.Equal(t, exitError, w.recover(6000))
				for _, slot := range []string{"lock.a", "lock.z"} {
					assert.Greater(t, w.tokens[slot], uint64(6000), slot)
					assert.NotContains(t, w.lease(t, slot).Annotations, api.PausedAnnotation, slot)
				}
				assert.Contains(t, w.err.String(), "lock.full in shop: a pod can acquire the slot meanwhile")
				assert.Contains(t, w.err.String(), "lock.full in shop: the slot may stay paused")
				assert.Equal(t, 2, strings.Count(w.err.String(), c.remedy), w.err.String())
				assert.Contains(t, w.err.String(), "error: 1 Lease could not be changed; slots may stay paused: repeat the command with --floor 6000\n")
				assert.Contains(t, w.out.String(), "no other slot can be acquired")
				assert.Contains(t, w.out.String(), "each other holder has a token above the floor\n")
			})
		})
	}
}

func TestRecoverCommandNamesABoundedNumberOfLeases(t *testing.T) {
	failed := failures{}
	for i := range 200 {
		failed[client.ObjectKey{Namespace: "shop", Name: fmt.Sprint("lock.", i)}] = errors.New(strings.Repeat("x", 100_000))
	}
	b := newByHand()
	recovering{std: stdio{out: &b.out, err: &b.err}}.report(failed, "effect")
	assert.Equal(t, mostReported+1, strings.Count(b.err.String(), "\n"))
	assert.Less(t, b.err.Len(), 100_000)
	assert.Contains(t, b.err.String(), "150 more Leases could not be changed: effect\n")
}

func TestRecoverCommandResumesSlotsIfWritesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.person", "", map[string]string{api.PausedAnnotation: "hold"}),
			slotLease("lock.before", "", map[string]string{api.PausedAnnotation: string(api.PauseRecover)}))
		w.meddle("metaparticle-recover-3", func() error { return apierrors.NewBadRequest("no space") })
		assert.Equal(t, exitError, w.recover(6000))
		assert.NotContains(t, w.lease(t, "lock.a").Annotations, api.PausedAnnotation)
		assert.Equal(t, "hold", w.lease(t, "lock.person").Annotations[api.PausedAnnotation])
		assert.Equal(t, "recover", w.lease(t, "lock.before").Annotations[api.PausedAnnotation], "the pause of an earlier run stays")
		assert.Equal(t, "error: raise the revision: no space; the pauses of this run have ended, and tokens can repeat: repeat the command with --floor 6000\n",
			w.err.String())
	})
}

func TestInterruptedRecoverCommandKeepsItsPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil))
		w.floor = 6000
		w.meddle("metaparticle-recover-3", func() error { interrupt(); return ctx.Err() })
		code := w.exitCode(t, func(std stdio, _ cluster) (int, error) {
			return recovering{cluster: cluster{WithWatch: w.WithWatch}, std: std, floor: 6000}.run(ctx)
		})
		assert.Equal(t, exitError, code)
		assert.Equal(t, "recover", w.lease(t, "lock.a").Annotations[api.PausedAnnotation])
		assert.Contains(t, w.err.String(), "slots may stay paused: repeat the command with --floor 6000")
	})
}

func TestRecoverCommandRepeatsWritesAfterTemporaryErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil))
		missed := map[string]int{}
		for _, name := range []string{"lock.a", "metaparticle-recover-0"} {
			w.meddle(name, func() error {
				if missed[name]++; missed[name] <= 2 {
					return apierrors.NewInternalError(errors.New("etcdserver: leader changed"))
				}
				return nil
			})
		}
		require.Equal(t, exitOK, w.recover(6000), w.err.String())
		assert.False(t, w.early)
	})
}

func TestRecoverCommandWritesNothingIfEveryPauseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.full", "a", nil))
		w.meddle("lock.full", full)
		assert.Equal(t, exitError, w.recover(6000))
		assert.Equal(t, uint64(5000), w.revision)
		assert.Contains(t, w.err.String(), "no slot can be paused, so nothing is written")
	})
}

func TestRecoverCommandRefusesTokensFarAboveFloor(t *testing.T) {
	token := func(value string) map[string]string { return map[string]string{api.TokenAnnotation: value} }
	const evil = "lock.z in shop"
	for name, c := range map[string]struct {
		floor   uint64
		token   string
		ignored []string
		code    int
		says    string
	}{
		"far above the floor":    {6000, "400000", nil, exitRefused, "the token 400000 of the Lease " + evil + " is 394000 above the floor or revision 6000"},
		"far above the revision": {0, "400000", nil, exitRefused, "repeat the command with --floor 400000; if not, leave it out: --ignore shop/lock.z\n"},
		"too far to write":       {6000, "9000000000", nil, exitRefused, "if no storage can have seen that token, leave it out: --ignore shop/lock.z\n"},
		"the greatest number":    {6000, "18446744073709551615", nil, exitRefused, "--ignore shop/lock.z\n"},
		"named as the floor":     {400000, "400000", nil, exitOK, "floor 400000;"},
		"ignored":                {6000, "9000000000", []string{"shop/lock.z"}, exitOK, "floor 6000;"},
		"ignored namespace":      {6000, "9000000000", []string{"shop"}, exitOK, "floor 6000;"},
		"another one is ignored": {6000, "400000", []string{"shop/lock", "shop/lock.y", "sho"}, exitRefused, "the Lease " + evil},
		"near":                   {6000, "16000", nil, exitOK, "floor 16000; 2 slots, 2 of them held with a token up to the floor\nthe floor is the token of the Lease " + evil + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.z", "b", token(c.token)))
			assert.Equal(t, c.code, w.recover(c.floor, func(r *recovering) { r.dryRun, r.ignored = true, c.ignored }))
			assert.Contains(t, w.out.String()+w.err.String(), c.says)
			assert.Equal(t, uint64(5000), w.revision)
		})
	}
}

func TestRecoverCommandProposesAtMostFiveIgnoreFlags(t *testing.T) {
	var there []client.Object
	for i := range 9 {
		there = append(there, slotLease(fmt.Sprint("lock.", i), "a", map[string]string{api.TokenAnnotation: fmt.Sprint(400_000 + i)}))
	}
	w := newRestored(t, 5000, there...)
	assert.Equal(t, exitRefused, w.recover(6000))
	assert.Contains(t, w.err.String(), ": --ignore shop/lock.8 --ignore shop/lock.7 --ignore shop/lock.6 --ignore shop/lock.5 --ignore shop/lock.4"+
		", and 4 more such flags, or --ignore NAMESPACE\n")
}

// Only the person knows the floor of the interrupted command, because that floor may be greater
// than each token in the cluster. So without --floor, "recover" refuses to continue.
func TestInterruptedRecoveryContinuesOnlyWithExplicitTokenFloor(t *testing.T) {
	w := newRestored(t, 5000, slotLease("lock.a", "", map[string]string{api.PausedAnnotation: string(api.PauseRecover)}),
		slotLease("lock.z", "b", map[string]string{api.TokenAnnotation: "5001"}))
	assert.Equal(t, exitRefused, w.recover(0))
	assert.Contains(t, w.err.String(), "slots are still paused by an earlier recover")
	assert.Equal(t, "recover", w.lease(t, "lock.a").Annotations[api.PausedAnnotation])
}

// passingErrors returns errors that say nothing about the object of the request.
func passingErrors() map[string]error {
	return map[string]error{
		"reset":        &url.Error{Op: "Patch", URL: "https://api", Err: &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}},
		"end":          io.EOF,
		"half":         io.ErrUnexpectedEOF,
		"dial":         &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded},
		"http2":        errors.New("http2: client connection lost"),
		"election":     apierrors.NewInternalError(errors.New("etcdserver: leader changed")),
		"unknown 500":  apierrors.NewGenericServerResponse(500, "patch", schema.GroupResource{}, "", "etcdserver: request timed out", 0, false),
		"proxy":        apierrors.NewGenericServerResponse(502, "patch", schema.GroupResource{}, "", "", 0, true),
		"busy":         apierrors.NewTooManyRequestsError("later"),
		"unrecognized": apierrors.NewUnauthorized("starting"),
	}
}

// failing makes the patches of an object fail for a time.
func (w *restored) failing(name string, failure error, lasts time.Duration) {
	first := sync.OnceValue(time.Now)
	w.meddle(name, func() error {
		if time.Since(first()) < lasts {
			return failure
		}
		return nil
	})
}

func TestRecoverCommandSucceedsDespiteTwentySecondsOfErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, failure := range passingErrors() {
		for _, of := range []string{"lock.b", "metaparticle-recover-3"} {
			t.Run(name+" of "+of, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.b", "b", nil))
					w.failing(of, failure, 20*time.Second)
					require.Equal(t, exitOK, w.recover(6000), w.err.String())
					assert.False(t, w.early, "no slot could be acquired under the floor")
					assert.Greater(t, w.tokens["lock.b"], uint64(6000))
					assert.Empty(t, w.err.String())
				})
			})
		}
	}
}

func TestRecoverCommandSucceedsDespiteFailedReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil))
		lists := 0
		w.WithWatch = interceptor.NewClient(w.WithWatch, interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
				if lists++; lists > 2 && lists%3 == 0 {
					return syscall.ECONNRESET
				}
				return c.List(ctx, list, options...)
			},
		})
		require.Equal(t, exitOK, w.recover(6000), w.err.String())
		assert.Greater(t, lists, 5)
	})
}

func TestRecoverCommandInterruptedDuringWaitReturnsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		w := newRestored(t, 7000, slotLease("lock.a", "a", nil))
		w.deaf = "lock.a"
		time.AfterFunc(10*time.Second, interrupt)
		code := w.exitCode(t, func(std stdio, _ cluster) (int, error) {
			return recovering{cluster: cluster{WithWatch: w.WithWatch}, std: std, floor: 6000, timeout: time.Minute}.run(ctx)
		})
		assert.Equal(t, exitError, code)
		assert.Contains(t, w.err.String(), "error: wait for the holders: context canceled; tokens up to the floor may remain: repeat the command with --floor 6000\n")
	})
}

func TestLastingPauseErrorEndsTheRecoverCommand(t *testing.T) {
	for name, failure := range passingErrors() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.b", "b", nil))
				w.failing("lock.b", failure, time.Hour)
				assert.Equal(t, exitError, w.recover(6000))
				assert.Equal(t, uint64(5001), w.revision, "only the pause of lock.a is written")
				assert.Equal(t, "recover", w.lease(t, "lock.a").Annotations[api.PausedAnnotation])
				assert.Contains(t, w.err.String(), "error: pause all slots: patch lease lock.b in shop: no success for 25s: ")
				assert.Contains(t, w.err.String(), "slots may stay paused: repeat the command with --floor 6000\n")
				assert.NotContains(t, w.err.String(), "edit lease", "the Lease is not the cause")
			})
		})
	}
}

func TestRecoverCommandKeepsPausesIfWritesKeepFailing(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, failure := range passingErrors() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.b", "b", nil))
				for i := range recoverWriters {
					w.failing(scratch(i).Name, failure, 40*time.Second)
				}
				assert.Equal(t, exitError, w.recover(6000))
				for _, slot := range []string{"lock.a", "lock.b"} {
					assert.Equal(t, "recover", w.lease(t, slot).Annotations[api.PausedAnnotation], slot)
				}
				assert.Contains(t, w.err.String(), "error: raise the revision: no success for 25s: ")
				assert.Contains(t, w.err.String(), "slots may stay paused: repeat the command with --floor 6000\n")
				assert.Equal(t, exitOK, w.recover(6000), "a repetition completes the recovery: %s", w.err)
				assert.False(t, w.early, "no slot could be acquired under the floor")
				assert.NotContains(t, w.lease(t, "lock.a").Annotations, api.PausedAnnotation)
			})
		})
	}
}

func TestRecoverCommandFailsIfPausesCannotBeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pauses := map[string]string{api.PausedAnnotation: string(api.PauseRecover)}
		w := newRestored(t, 7000, slotLease("lock.a", "a", pauses), slotLease("lock.b", "b", pauses))
		w.failing("lock.b", syscall.ECONNRESET, time.Hour)
		assert.Equal(t, exitError, w.recover(6000))
		assert.NotContains(t, w.lease(t, "lock.a").Annotations, api.PausedAnnotation)
		assert.Contains(t, w.err.String(), "error: end the pauses: patch lease lock.b in shop: no success for 25s: ")
		assert.NotContains(t, w.out.String(), "holders are asked to yield", "the step is not complete")
	})
}

func TestRecoverCommandEndsSoonWithoutTheAPIServer(t *testing.T) {
	for name, answers := range map[string]time.Duration{"refused": 0, "lost": 30 * time.Second, "silent": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var there []client.Object
				for i := range 100 {
					there = append(there, slotLease(fmt.Sprint("lock.", i), "a", nil))
				}
				w := newRestored(t, 5000, there...)
				w.WithWatch = interceptor.NewClient(w.WithWatch, interceptor.Funcs{
					Patch: func(ctx context.Context, _ client.WithWatch, _ client.Object, _ client.Patch, _ ...client.PatchOption) error {
						select {
						case <-time.After(answers):
							return syscall.ECONNREFUSED
						case <-ctx.Done():
							return ctx.Err()
						}
					},
				})
				began := time.Now()
				assert.Equal(t, exitError, w.recover(6000))
				assert.LessOrEqual(t, time.Since(began), patience)
				assert.Equal(t, uint64(5000), w.revision)
				assert.Contains(t, w.err.String(), "repeat the command with --floor 6000\n")
			})
		})
	}
}

func TestRecoverCommandFailsIfInterruptedWhileEndingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		pauses := map[string]string{api.PausedAnnotation: string(api.PauseRecover)}
		w := newRestored(t, 7000, slotLease("lock.a", "a", pauses), slotLease("lock.b", "b", pauses))
		w.meddle("lock.a", func() error { interrupt(); return nil })
		code := w.exitCode(t, func(std stdio, _ cluster) (int, error) {
			return recovering{cluster: cluster{WithWatch: w.WithWatch}, std: std, floor: 6000, timeout: time.Minute}.run(ctx)
		})
		assert.Equal(t, exitError, code)
		assert.Equal(t, "recover", w.lease(t, "lock.b").Annotations[api.PausedAnnotation])
		assert.NotContains(t, w.out.String(), "holders are asked to yield")
		assert.Equal(t, "error: end the pauses: context canceled; slots may stay paused: repeat the command with --floor 6000\n", w.err.String())
	})
}

// The Lease lock.free gets no pause, so a pod could acquire this slot during the writes.
func TestRecoverCommandFailsIfASlotStaysUnpaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRestored(t, 5000, slotLease("lock.a", "a", nil), slotLease("lock.free", "", nil))
		w.meddle("lock.free", full)
		assert.Equal(t, exitError, w.recover(6000))
		assert.Greater(t, w.tokens["lock.a"], uint64(6000))
		assert.Contains(t, w.err.String(), "error: 1 slots had no pause during the writes, so tokens of these slots can repeat: "+
			"apply the remedies, and repeat the command with --floor 6000\n")
	})
}
