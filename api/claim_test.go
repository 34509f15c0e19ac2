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

func TestSlotIsRecognizedByNameOfItsLease(t *testing.T) {
	long := strings.Repeat("l", 253)
	for lease, want := range map[string]bool{
		"lock.a": true, "lock.a.b-c.0": true, "lock." + long[:248]: true, "singleton.deployment.biller": true,
		"singleton-writer.deployment.a.b": true, "singleton.rollout-argoproj-io.r": true, "singleton.a--b.x": true,
		"singleton.a--b-c--d.x": true, SingletonLease(Workload{"apps", "Deployment", long}, ""): true,

		"semaphore.a.0": true, "semaphore.a.1.31": true, "semaphore." + long[:240] + ".9": true,

		"rwlock.a.0": true, "rwlock.a.intent": true, "rwlock.a.intent.15": true, "rwlock." + long[:239] + ".intent": true,
		"rwlock.a": false, "rwlock.a.16": false, "rwlock.a.00": false, "rwlock.intent": false, "rwlock..intent": false,
		"rwlock." + long[:240] + ".intent": false, "next.rwlock.a.0": false, "rwlock.a.intents": false,

		"semaphore.a": false, "semaphore.a.": false, "semaphore..0": false, "semaphore.0": false, "semaphore.a.64": false,
		"semaphore.a.01": false, "semaphore.a.-1": false, "semaphore.A.0": false, "semaphore." + long[:241] + ".9": false,
		"": false, "lock": false, "lock.": false, "lock.CAPS_and spaces": false, "lock.a,b": false, "lock.a/b": false,
		"lock." + long[:249]: false, "lock.-a": false, "lock.a..b": false,
		"singleton": false, "singleton.": false, "singleton.deployment": false, "singleton.deployment.": false,
		"singleton.Deployment.x": false, "singleton.deployment.X": false, "singleton-.deployment.x": false,
		"singleton-no.deployment.x": false, "singleton-true.deployment.x": false, "singleton-a.x": false,
		"singleton-" + long[:64] + ".deployment.x": false, "singletons.deployment.x": false,
		"singleton.1kind.x": false, "singleton.a-.x": false, "singleton.-a.x": false, "singleton.a---b.x": false,
		"singleton.deployment-apps.x": false, "singleton.job-batch.x": false, "singleton.deployment.x,lock.y": false,
		"singleton." + long[:64] + ".x": false, "singleton.a-" + long[:200] + ".x y": false,
		"singleton.deployment." + long[:232]:                                  false,
		"singleton.deployment." + long[:198] + "x-" + strings.Repeat("g", 32): false,
		"singleton.Deployment." + long[:198] + "x-" + strings.Repeat("0", 32): false,
		"singleton.deployment." + long[:198] + "y-" + strings.Repeat("0", 32): false,
		"metaparticle-enroll": false, "kube-scheduler": false,
	} {
		assert.Equal(t, want, IsSlot(lease), lease)
	}
}

func TestWorkloadWithMalformedTypeOrNameIsInvalid(t *testing.T) {
	for w, want := range map[Workload]bool{
		{"apps", "Deployment", "biller"}:                        true,
		{"", "Pod", "a.b"}:                                      true,
		{"argoproj.io", "Rollout", "r"}:                         true,
		{"apps", "Deployment", ""}:                              false,
		{"apps", "", "x"}:                                       false,
		{"apps", "Deployment", "x,singleton.deployment.biller"}: false,
		{"apps", "Deployment", "X"}:                             false,
		{"apps", "Deployment", strings.Repeat("x", 254)}:        false,
		{"apps", "a,b", "x"}:                                    false,
		{"apps", "a.b", "x"}:                                    false,
		{"apps", "1", "x"}:                                      false,
		{"apps", "\u212aind", "x"}:                              false, // a Kelvin sign, whose lower case is the letter k
		{"a_b", "Kind", "x"}:                                    false,
		{"a,b", "Kind", "x"}:                                    false,
	} {
		assert.Equal(t, want, w.Valid(), "%+v", w)
		if read, ok := ParseWorkload(w.String()); want {
			assert.True(t, ok)
			assert.Equal(t, w, read)
		}
	}
}

// A name that looks like the shortened form of another one is shortened, too.
func TestShortenedLeaseNameDiffersFromAllOtherNames(t *testing.T) {
	for length := 200; length <= 253; length++ {
		for _, end := range []string{"", "-", "--------", "."} {
			name := strings.Repeat("n", length-len(end)-1) + end + "m"
			lease := SingletonLease(Workload{"apps", "Deployment", name}, "")
			require.LessOrEqual(t, len(lease), maxName)
			require.True(t, isSubdomain(lease), lease)
			require.True(t, IsSlot(lease), lease)
			double := strings.TrimPrefix(lease, "singleton.deployment.")
			if double != name {
				require.NotEqual(t, lease, SingletonLease(Workload{"apps", "Deployment", double}, ""))
			}
		}
	}
	for length := maxName; length < 300; length++ {
		short := shortName(strings.Repeat("a", length))
		assert.Len(t, short, maxName)
		assert.NotEqual(t, short, shortName(short))
	}
}

// FuzzDifferentWorkloadsHaveDifferentLeases searches for two workloads with one Lease. The
// fuzzer also searches for a claim's Lease that IsSlot refuses, and for a Lease that IsSlot
// accepts and no claim names.
func FuzzDifferentWorkloadsHaveDifferentLeases(f *testing.F) {
	long := strings.Repeat("n", 240)
	f.Add("apps", "Deployment", "biller", "", "batch", "Job", "biller", "writer", "singleton.a--b-c-d.x")
	f.Add("", "Pod", long, "", "", "Pod", long+"m", "", "lock.x")
	f.Add("a-b.c", "K-d", long, "x", "a.b-c", "K", long, "x", SingletonLease(Workload{"", "Pod", long}, ""))
	f.Add(strings.Repeat("a-", 120)+"a", "K--d", "x", "", strings.Repeat("a.", 120)+"a", "K--d", "x", "", "singleton-no.a.x")
	f.Fuzz(func(t *testing.T, group, kind, name, singleton, group2, kind2, name2, singleton2, lease string) {
		one, other := Workload{group, kind, name}, Workload{group2, kind2, name2}
		named := func(s string) bool { return s == "" || isSingletonName(s) }
		if one.Valid() && other.Valid() && named(singleton) && named(singleton2) {
			first, second := SingletonLease(one, singleton), SingletonLease(other, singleton2)
			for _, lease := range []string{first, second} {
				if !IsSlot(lease) || !isSubdomain(lease) || len(lease) > maxName {
					t.Fatalf("%q is no slot", lease)
				}
			}
			if same := canonical(one) == canonical(other) && singleton == singleton2; same != (first == second) {
				t.Fatalf("%+v %q and %+v %q: %s, %s", one, singleton, other, singleton2, first, second)
			}
			// A person could choose the shortened form of a workload's name as the
			// name of another workload.
			if _, rest, _ := strings.Cut(first, "."); rest != "" {
				_, chosen, _ := strings.Cut(rest, ".")
				double := Workload{group, kind, chosen}
				if double.Valid() && chosen != name && SingletonLease(double, singleton) == first {
					t.Fatalf("%+v and %+v share %s", one, double, first)
				}
			}
		}
		if IsSlot(lease) && len(lease) < maxName && !strings.HasPrefix(lease, "lock.") {
			first, rest, _ := strings.Cut(lease, ".")
			kindPart, workload, _ := strings.Cut(rest, ".")
			of, _ := readKind(kindPart)
			of.Name = workload
			request, err := Parse(map[string]string{SingletonAnnotation: strings.TrimPrefix(strings.Replace(first, "singleton", "true", 1), "true-")})
			if err != nil || !of.Valid() || request.Slots(of)[0] != lease {
				t.Fatalf("no claim names %q: %+v, %v", lease, of, err)
			}
		}
	})
}

// canonical returns equal values for workloads that are meant to share a slot.
func canonical(w Workload) Workload {
	w.Kind = strings.ToLower(w.Kind)
	if w.builtin() {
		w.Group = ""
	}
	return w
}
