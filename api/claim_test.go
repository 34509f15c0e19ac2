// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// semaphore is a kind that does not exist: of all pods in the namespace that name it,
// as many run as it has slots. The table must carry such a kind.
var semaphore = Annotation{
	Key: Prefix + "semaphore", Value: "`name=size`", Default: "no claim", Meaning: "…", Examples: []string{"workers=3"},
	Kind: &Kind{
		Key: Prefix + "semaphore", Ask: Prefix + "semaphore", Scope: ScopeNamespace,
		parse: func(value string) ([]Claim, string) {
			name, text, _ := strings.Cut(value, "=")
			size, err := strconv.Atoi(text)
			if err != nil || size < 1 || !isLock(name) {
				return nil, "write a name and a size"
			}
			return []Claim{{Name: name, Size: size}}, ""
		},
		slots: func(c Claim, _ Workload) []string {
			var slots []string
			for i := range c.Size {
				slots = append(slots, fmt.Sprintf("semaphore-%d.%s", i, c.Name))
			}
			return slots
		},
		isSlot: func(lease string) bool {
			first, name, _ := strings.Cut(lease, ".")
			i, ok := strings.CutPrefix(first, "semaphore-")
			_, err := strconv.Atoi(i)
			return ok && err == nil && isLock(name)
		},
	},
}

func TestTableCarriesClaimsOfSeveralHolders(t *testing.T) {
	all := append(slices.Clone(Annotations), semaphore)
	r, err := all.parse(map[string]string{semaphore.Key: "workers=3", LockAnnotation: "a", ReadinessAnnotation: "forward"})
	require.NoError(t, err)
	workers := Claim{Kind: semaphore.Kind, Name: "workers", Size: 3}
	assert.Equal(t, claimed(lock("a"), workers), r.Claimed)
	assert.Equal(t, []string{"semaphore-0.workers", "semaphore-1.workers", "semaphore-2.workers"}, workers.Slots(Workload{}))
	assert.Equal(t, []string{"lock.a", "semaphore-0.workers", "semaphore-1.workers", "semaphore-2.workers"}, r.Slots(Workload{}))
	assert.Equal(t, ReadinessHolder, r.Standbys(), "no single holder to forward to")
	assert.True(t, all.isSlot("semaphore-2.workers"))
	assert.False(t, IsSlot("semaphore-2.workers"), "the table of this version has no such kind")

	for value, want := range map[string]string{
		"workers":   `metaparticle.io/semaphore is "workers": write a name and a size`,
		"workers=0": `metaparticle.io/semaphore is "workers=0": write a name and a size`,
	} {
		_, err = all.parse(map[string]string{semaphore.Key: value})
		assert.EqualError(t, err, want)
	}
	_, err = all.parse(map[string]string{Prefix + "semaphor": "workers=3"})
	assert.EqualError(t, err, "metaparticle.io/semaphor is not known: did you mean metaparticle.io/semaphore?")
	_, err = all.parse(map[string]string{OnLossAnnotation: "restart"})
	assert.ErrorContains(t, err, `add metaparticle.io/singleton: "true" or metaparticle.io/lock or metaparticle.io/semaphore, or remove it`)
	_, err = all.parse(map[string]string{semaphore.Key: "workers=3", InjectAnnotation: "false"})
	assert.ErrorContains(t, err, "metaparticle.io/semaphore claims a slot")
	for _, a := range all {
		checkRow(t, all, a)
	}
}

func TestEachRowOfTheTableIsWhole(t *testing.T) {
	for _, a := range Annotations {
		t.Run(a.Key, func(t *testing.T) { checkRow(t, Annotations, a) })
	}
}

// checkRow holds a row to what parsing, documents and policies take from it.
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
			assert.Len(t, slots, c.Size)
			for _, slot := range slots {
				kinds := slices.DeleteFunc(slices.Clone(all), func(a Annotation) bool { return a.Kind == nil || !a.Kind.isSlot(slot) })
				assert.Len(t, kinds, 1, "%s is a slot of one kind", slot)
				assert.Equal(t, c.Kind.Scope == ScopeWorkload, !slices.Contains(c.Slots(Workload{"apps", "Deployment", "other"}), slot), slot)
			}
		}
	}
}

func TestWithinReturnsTheFirstClaimOfAScope(t *testing.T) {
	r := Request{Claimed: claimed(lock("a"), named("writer"), plain)}
	c, ok := r.Within(ScopeWorkload)
	assert.True(t, ok)
	assert.Equal(t, named("writer"), c)
	_, ok = Request{Claimed: claimed(lock("a"))}.Within(ScopeWorkload)
	assert.False(t, ok)
}
