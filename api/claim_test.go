// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSemaphoreClaimContainsAllSlotsButNeedsOne(t *testing.T) {
	r, err := Parse(map[string]string{SemaphoreAnnotation: "pool=3"})
	require.NoError(t, err)
	pool := Claim{Kind: Semaphore, Name: "pool", Size: 3}
	assert.Equal(t, claimed(pool), r.Claimed)
	assert.True(t, r.Any())
	assert.Equal(t, []string{"semaphore.pool.0", "semaphore.pool.1", "semaphore.pool.2"}, r.Slots(Workload{"apps", "Deployment", "a"}))
	assert.Equal(t, r.Slots(Workload{}), r.Slots(Workload{"batch", "Job", "b"}), "the semaphore is of the namespace")
	assert.Equal(t, ReadinessHolder, r.Standbys(), "no single holder to forward to")

	r, err = Parse(map[string]string{SemaphoreAnnotation: "pool=12"})
	require.NoError(t, err)
	slots := r.Slots(Workload{})
	assert.Len(t, slots, 12)
	assert.IsNonDecreasing(t, slots, "the agent demands the order of the names")

	r, err = Parse(map[string]string{SemaphoreAnnotation: "pool=1"})
	require.NoError(t, err)
	assert.False(t, r.Any(), "one slot of one is all of them")
	r, err = Parse(map[string]string{LockAnnotation: "a,b"})
	require.NoError(t, err)
	assert.False(t, r.Any())
}

func TestSemaphoresOfAllSizesHaveSameFirstSlots(t *testing.T) {
	three, err := Parse(map[string]string{SemaphoreAnnotation: "pool=3"})
	require.NoError(t, err)
	five, err := Parse(map[string]string{SemaphoreAnnotation: "pool=5"})
	require.NoError(t, err)
	assert.Equal(t, three.Slots(Workload{}), five.Slots(Workload{})[:3], "at most the greatest size runs")
}

func TestErrorExplainsEachInvalidSemaphoreAnnotation(t *testing.T) {
	long := strings.Repeat("a", maxSemaphoreName)
	_, err := Parse(map[string]string{SemaphoreAnnotation: long + "=32"})
	require.NoError(t, err)
	for value, want := range map[string]string{
		"":           "write a name and how many pods may run, as in pool=3",
		"pool":       "write a name and how many pods may run, as in pool=3",
		"a=2,b=3":    "name one semaphore: a pod can have no other",
		"pool=":      "after the = write how many pods may run: a number from 1 to 64",
		"pool=0":     "after the = write how many pods may run: a number from 1 to 64",
		"pool=65":    "after the = write how many pods may run: a number from 1 to 64",
		"pool=03":    "after the = write how many pods may run: a number from 1 to 64",
		"pool=3x":    "after the = write how many pods may run: a number from 1 to 64",
		"Pool=3":     "a semaphore's name is at most 240 lower-case letters, digits, dashes and dots, with a letter or digit at both ends",
		"=3":         "a semaphore's name is at most 240 lower-case letters, digits, dashes and dots, with a letter or digit at both ends",
		long + "a=3": "a semaphore's name is at most 240 lower-case letters, digits, dashes and dots, with a letter or digit at both ends",
	} {
		_, err := Parse(map[string]string{SemaphoreAnnotation: value})
		require.Error(t, err, value)
		assert.True(t, strings.HasPrefix(err.Error(), "metaparticle.io/semaphore is ") && strings.HasSuffix(err.Error(), ": "+want), "%s: %v", value, err)
	}
}

func TestSemaphoreMustBeThePodsOnlyClaim(t *testing.T) {
	for name, test := range map[string]struct {
		key, value, want string
	}{
		"lock":      {LockAnnotation, "a", "metaparticle.io/semaphore cannot be in one pod with metaparticle.io/lock: remove one of the two"},
		"singleton": {SingletonAnnotation, "true", "metaparticle.io/semaphore cannot be in one pod with metaparticle.io/singleton: remove one of the two"},
		"forward": {ReadinessAnnotation, "forward",
			`metaparticle.io/readiness is "forward", but with metaparticle.io/semaphore only the holders are Ready, because several pods can hold: remove it`},
		"delay":     {EndpointDelayAnnotation, "1s", "metaparticle.io/endpoint-delay has no effect here, because standbys that are never Ready forward nothing: remove it"},
		"misspelt":  {Prefix + "semaphor", "pool=3", "metaparticle.io/semaphor is not known: did you mean metaparticle.io/semaphore?"},
		"opted out": {InjectAnnotation, "false", `metaparticle.io/inject is "false", but metaparticle.io/semaphore claims a slot: remove one of the two`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(map[string]string{SemaphoreAnnotation: "pool=3", test.key: test.value})
			assert.EqualError(t, err, test.want)
		})
	}
	_, err := Parse(map[string]string{SemaphoreAnnotation: "pool=3", SingletonAnnotation: "false"})
	assert.NoError(t, err, "it claims nothing")
}

func TestEachRowOfTheAnnotationTableIsComplete(t *testing.T) {
	for _, a := range Annotations {
		t.Run(a.Key, func(t *testing.T) { checkRow(t, Annotations, a) })
	}
}

// checkRow checks that a row is complete for parsing, the documentation and the
// policies.
func checkRow(t *testing.T, all table, a Annotation) {
	t.Helper()
	assert.True(t, strings.HasPrefix(a.Key, Prefix))
	assert.True(t, strings.HasSuffix(a.Meaning, ".") || a.Meaning == "…")
	assert.NotEmpty(t, a.Value)
	assert.NotEmpty(t, a.Default)
	assert.NotEmpty(t, a.Examples)
	assert.Equal(t, a.Kind == nil, a.set != nil, "a kind or a setting")
	for _, value := range a.Examples {
		annotations := map[string]string{a.Key: value}
		if a.Kind == nil && !a.Alone {
			annotations[SingletonAnnotation] = "true"
		}
		if a.Local {
			annotations = map[string]string{a.Key: value, LocalAnnotation: "lock/a"}
		}
		r, err := all.parse(annotations)
		require.NoError(t, err, value)
		if a.Kind == nil {
			continue
		}
		assert.Equal(t, a.Key, a.Kind.Key)
		assert.True(t, strings.HasPrefix(a.Kind.Ask, a.Key))
		require.True(t, r.Claims())
		for _, c := range r.Claimed {
			slots := c.Slots(Workload{"apps", "Deployment", "biller"})
			if c.Kind == RWLock { // such a claim has more slots than its size
				assert.Subset(t, slots, []string{"rwlock.catalog.intent", "rwlock.catalog.15"})
				continue
			}
			if c.Kind == Arrivals { // the names of the Leases need the run, which no annotation states
				assert.Empty(t, slots)
				continue
			}
			assert.Len(t, slots, c.Size)
			for _, slot := range slots {
				kinds := slices.DeleteFunc(slices.Clone(all), func(a Annotation) bool { return a.Kind == nil || !a.Kind.isSlot(slot) })
				assert.Len(t, kinds, 1, "%s is a slot of one kind", slot)
				assert.Equal(t, c.Scope() == ScopeWorkload, !slices.Contains(c.Slots(Workload{"apps", "Deployment", "other"}), slot), slot)
			}
		}
	}
}

func TestFirstClaimWithinAGivenScopeIsFound(t *testing.T) {
	r := Request{Claimed: claimed(lock("a"), named("writer"), plain)}
	c, ok := r.Within(ScopeWorkload)
	assert.True(t, ok)
	assert.Equal(t, named("writer"), c)
	_, ok = Request{Claimed: claimed(lock("a"))}.Within(ScopeWorkload)
	assert.False(t, ok)
}

func TestSizeOfRWLockNeverChangesTheSlots(t *testing.T) {
	two, err := Parse(map[string]string{LocalAnnotation: "rwlock/a=2"})
	require.NoError(t, err)
	sixteen, err := Parse(map[string]string{LocalAnnotation: "rwlock/a=16"})
	require.NoError(t, err)
	slots := two.Claimed[0].Slots(Workload{})
	require.Len(t, slots, 1+RWLockSlots)
	assert.Equal(t, []string{"rwlock.a.intent", "rwlock.a.0", "rwlock.a.1"}, slots[:3], "a writer acquires the intent first")
	assert.Equal(t, slots, sixteen.Claimed[0].Slots(Workload{}))
	for _, slot := range slots {
		assert.False(t, HasNextLease(slot))
	}
}
