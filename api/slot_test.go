// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
