// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSoleStartLockIsHeldOnlyDuringStart(t *testing.T) {
	r, err := Parse(map[string]string{StartLockAnnotation: "db"})
	require.NoError(t, err)
	assert.Equal(t, claimed(Claim{Kind: StartLock, Name: "db", Size: 1}), r.Claimed)
	assert.True(t, r.StartsOnly())
	assert.Empty(t, r.forLife())
	assert.False(t, r.TakesTurns())
	assert.Equal(t, ReadinessHolder, r.Standbys(), "no holder exists to which a waiting pod could forward")
	life, start := SplitSlots(r.Slots(Workload{Kind: "Deployment", Name: "web"}))
	assert.Empty(t, life)
	assert.Equal(t, []string{"start-lock.db"}, start)
	assert.True(t, IsSlot("start-lock.db"))
	assert.Equal(t, ScopeNamespace, ScopeOf("start-lock.db"))
	assert.False(t, HasNextLease("start-lock.db"))
	assert.False(t, IsSlot("start-lock."))
	assert.False(t, IsSlot("start-lock.A"))
}

func TestStartLockLeavesOtherClaimsUnchanged(t *testing.T) {
	of := Workload{Group: "apps", Kind: "Deployment", Name: "web"}
	for name, test := range map[string]struct {
		key, value string
		turns, any bool
		standbys   Readiness
		life       []string
	}{
		"singleton": {SingletonAnnotation, "true", true, false, ReadinessForward, []string{"singleton.deployment.web"}},
		"locks":     {LockAnnotation, "z,a", true, false, ReadinessForward, []string{"lock.a", "lock.z"}},
		"semaphore": {SemaphoreAnnotation, "pool=2", false, true, ReadinessHolder, []string{"semaphore.pool.0", "semaphore.pool.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Parse(map[string]string{StartLockAnnotation: "db", test.key: test.value})
			require.NoError(t, err)
			assert.True(t, r.StartsInTurn())
			assert.False(t, r.StartsOnly())
			assert.Equal(t, test.turns, r.TakesTurns())
			assert.Equal(t, test.any, r.Any())
			assert.Equal(t, test.standbys, r.Standbys())
			life, start := SplitSlots(r.Slots(of))
			assert.Equal(t, test.life, life)
			assert.Equal(t, []string{"start-lock.db"}, start)
		})
	}
}

func TestErrorExplainsEachInvalidStartLock(t *testing.T) {
	const names = "a start lock's name is at most 242 lower-case letters, digits, dashes and dots, with a letter or digit at both ends"
	long := strings.Repeat("a", maxStartLock)
	_, err := Parse(map[string]string{StartLockAnnotation: long})
	require.NoError(t, err)
	for _, test := range []struct{ key, value, want string }{
		{StartLockAnnotation, "", `metaparticle.io/start-lock is "": ` + names},
		{StartLockAnnotation, "A", `metaparticle.io/start-lock is "A": ` + names},
		{StartLockAnnotation, "warm=5", `metaparticle.io/start-lock is "warm=5": a start lock lets one pod start at a time, and takes no number: leave out the = and what follows. To let several start at once, divide them among several start locks; metaparticle.io/semaphore limits how many run`},
		{StartLockAnnotation, "a,b", `metaparticle.io/start-lock is "a,b": name one start lock: a pod can have no other`},
		{GateAnnotation, "pod", `metaparticle.io/gate is "pod", but with metaparticle.io/start-lock a shim must start the application: remove one of the two`},
		{GateAnnotation, "readiness", `metaparticle.io/gate is "readiness", but with metaparticle.io/start-lock a shim must start the application: remove one of the two`},
		{OnLossAnnotation, "restart", `metaparticle.io/on-loss has no effect with metaparticle.io/start-lock alone, under which the application runs without a slot: remove it`},
		{ReadinessAnnotation, "holder", `metaparticle.io/readiness has no effect with metaparticle.io/start-lock alone, under which the application runs without a slot: remove it`},
		{OnBusyAnnotation, "skip", `metaparticle.io/on-busy has no effect with metaparticle.io/start-lock alone, under which the application runs without a slot: remove it`},
		{OnceAnnotation, "schema=7", `metaparticle.io/once cannot be in one pod with metaparticle.io/start-lock: remove one of the two`},
		{ShardsAnnotation, "3", `metaparticle.io/shards cannot be in one pod with metaparticle.io/start-lock: remove one of the two`},
		{LocalAnnotation, "lock/a", `metaparticle.io/api cannot be in one pod with metaparticle.io/start-lock: remove one of the two`},
	} {
		t.Run(test.key+"="+test.value, func(t *testing.T) {
			annotations := map[string]string{StartLockAnnotation: "db"}
			annotations[test.key] = test.value
			_, err := Parse(annotations)
			assert.EqualError(t, err, test.want)
		})
	}
	for _, key := range []string{LeaseDurationAnnotation, WaitAtMostAnnotation} {
		_, err := Parse(map[string]string{StartLockAnnotation: "db", key: "1m"})
		assert.NoError(t, err, key)
	}
}

// Several pods at once are a semaphore's.
func TestNumberOfAClaimForOnePodNamesTheSemaphore(t *testing.T) {
	for claim, want := range map[[2]string]string{
		{LockAnnotation, "a=3"}:       "a lock has one holder, and takes no number",
		{LockAnnotation, "b,a=3"}:     "a lock has one holder, and takes no number",
		{LocalAnnotation, "lock/a=3"}: "a lock has one holder, and takes no number",
		{SingletonAnnotation, "2"}:    "a singleton has one holder, and takes no number",
		{SingletonAnnotation, "a=2"}:  "a singleton has one holder, and takes no number",
	} {
		_, err := Parse(map[string]string{claim[0]: claim[1]})
		if assert.ErrorContains(t, err, want, claim) {
			assert.ErrorContains(t, err, "metaparticle.io/semaphore")
		}
	}
	_, err := Parse(map[string]string{LockAnnotation: "a=b"})
	assert.ErrorContains(t, err, "a lock's name is at most")
	assert.True(t, IsSlot("singleton-2.deployment.web"), "a pod that an earlier version admitted keeps its Lease")
}

func TestConditionOnACustomKindNamesItsGroup(t *testing.T) {
	lease := SingletonLease(Workload{Group: "argoproj.io", Kind: "Rollout", Name: "db"}, "")
	r, err := Parse(map[string]string{AfterAnnotation: lease})
	require.NoError(t, err)
	assert.Equal(t, []Condition{{Lease: "singleton.rollout-argoproj-io.db"}}, r.After)
}
