// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A person writes the name of a kind to name a claim. The names of the claim's Leases must begin
// with the name of that kind.
func TestLeaseNamesBeginWithKindOfTheClaim(t *testing.T) {
	for _, kind := range Kinds() {
		slots := Claim{Kind: kind, Name: "a", Size: 2}.Slots(Workload{"apps", "Deployment", "b"})
		for _, slot := range slots {
			assert.Regexp(t, "^"+kind.Name()+`[.-]`, slot)
			assert.Same(t, kind, kindOf(slot), slot)
			assert.Equal(t, kind.AnyOne, AnyOne(slot), slot)
		}
		assert.True(t, !kind.AnyOne || len(slots) == 2, "%s has as many slots as its size", kind.Name())
	}
}

// The list "mentions" has the files outside of package api that may name a kind with
// interchangeable slots. Such a kind has the scope namespace, and a pod needs any one of its slots.
var mentions = []string{
	"sim/story/programs.go", // the fixed list of simulated claims names such kinds
}

// Only the files in the list [mentions] may name a kind with interchangeable slots. All other files
// outside of package api find such kinds by [Kinds]. So those other files need no change for a
// new kind of this sort.
func TestOnlyListedFilesMentionKindsWithInterchangeableSlots(t *testing.T) {
	var words []string
	for _, kind := range Kinds() {
		if kind.AnyOne && kind.Scope == ScopeNamespace {
			words = append(words, regexp.QuoteMeta(kind.Name()))
		}
	}
	require.NotEmpty(t, words)
	word := strings.Join(words, "|")
	text := regexp.MustCompile(`(^|[^a-z-])(` + word + `)($|[./])`)
	name := regexp.MustCompile(`(?i)^(is)?(` + strings.ReplaceAll(word, "-", "") + `)(annotation|lease|slot)?$`)
	var found []string
	for path, file := range products(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if n.Kind == token.STRING && text.MatchString(strings.Trim(n.Value, "`\"")) {
					found = append(found, path)
				}
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && of.Name == "api" && name.MatchString(n.Sel.Name) {
					found = append(found, path)
				}
			}
			return true
		})
	}
	slices.Sort(found)
	assert.Equal(t, mentions, slices.Compact(found), "derive the list from api.Kinds")
}

// products returns the sources of the product and of the simulation, without tests and package api.
func products(t *testing.T) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	for _, folder := range []string{"agent", "cmd", "console", "enroll", "manifests", "mutate", "setup", "sim"} {
		require.NoError(t, filepath.WalkDir(filepath.Join("..", folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := goparser.ParseFile(token.NewFileSet(), path, nil, goparser.SkipObjectResolution)
			files[strings.TrimPrefix(filepath.ToSlash(path), "../")] = file
			return err
		}))
	}
	return files
}

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

func TestSingletonOfAWorkloadThatRollsHasANextLease(t *testing.T) {
	for of, rolls := range map[Workload]bool{
		{"apps", "Deployment", "a"}: true, {"apps", "StatefulSet", "a"}: true, {"apps", "DaemonSet", "a"}: true, {"argoproj.io", "Rollout", "a"}: true,
		{"apps", "ReplicaSet", "a"}: false, {"batch", "Job", "a"}: false, {"", "Pod", "a"}: false, {"example.com", "Deployment", "a"}: false, {"example.com", "Rollout", "a"}: false,
	} {
		assert.Equal(t, rolls, of.Rolls(), of)
		assert.Equal(t, rolls, HasNextLease(SingletonLease(of, "")), of)
	}
}
