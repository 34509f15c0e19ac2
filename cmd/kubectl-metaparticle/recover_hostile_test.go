// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

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
				assert.Contains(t, w.err.String(), "error: 1 Leases could not be changed; slots may stay paused: repeat the command with --floor 6000\n")
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
