// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/tools/limit"
)

// If a limit is exceeded, change the code and not the limit. The command "make ways PKG=…" puts
// the files into the best order, and lists the calls from a later to an earlier file.
func TestSourceCodeStaysWithinRecordedStructureLimits(t *testing.T) {
	m, err := measure("../..")
	require.NoError(t, err)
	for file, counts := range m.counts() {
		limits, err := limit.Read(file)
		require.NoError(t, err)
		assert.Empty(t, limits.Exceeded(counts, limit.Max), "make ways PKG=folder prints the calls")
	}
}

// sources type-checks one package, whose files import nothing.
func sources(t *testing.T, files map[string]string) *program {
	t.Helper()
	p := &program{set: token.NewFileSet()}
	its := &pkg{folder: "p", info: &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file, err := parser.ParseFile(p.set, name, "package p\n"+files[name], parser.SkipObjectResolution)
		require.NoError(t, err)
		its.files = append(its.files, file)
	}
	var err error
	its.types, err = new(types.Config).Check("p", p.set, its.files, its.info)
	require.NoError(t, err)
	p.packages = []*pkg{its}
	return p
}

// TestWaysToolComputesTheFiguresInPackageComment checks the example in the comment of the package.
func TestWaysToolComputesTheFiguresInPackageComment(t *testing.T) {
	p := sources(t, map[string]string{
		"loop.go":  "type Agent struct{ wake int }\nfunc (a *Agent) run() { a.renew() }\nfunc (a *Agent) wakeAt() {}",
		"renew.go": "func (a *Agent) renew() { a.wakeAt() }",
		"time.go":  "type pause struct{}\nvar _ = Agent{}.wake",
	})
	found := figuresOf(p, newGraph(p))[0]
	assert.Equal(t, "1/2", found.calls.String())
	assert.Equal(t, "1/3", found.uses.String())
	assert.Equal(t, "time", found.uses.order[0])
	assert.Equal(t, 3, found.methods)
	assert.Equal(t, "Agent", found.largest)
}

func TestWaysToolFollowsCallsAndInterfaceImplementations(t *testing.T) {
	p := sources(t, map[string]string{"a.go": `
type gate interface{ grant() }
type shim struct{}
func (shim) grant() { note() }
func note() {}
func unused() { note() }
var states = map[string]func(){"held": note}
func held() { start(nil) }
func start(g gate) {
	g.grant()
	func() { note() }()
	defer states["held"]()
	f := held
	f()
}`})
	g := newGraph(p)
	walk, err := g.follow(way{"start", "p", "start"})
	require.NoError(t, err)
	var names []string
	for _, f := range walk.functions {
		names = append(names, f.name)
	}
	assert.Equal(t, []string{"p.start", "p.(shim).grant", "p.note", "p.states", "p.held"}, names)
	assert.Equal(t, 7, walk.calls)
	assert.Equal(t, 3, walk.again, "note twice, and start")
	assert.Equal(t, 1, walk.circles, "start")

	_, err = g.follow(way{"lost", "p", "lost"})
	assert.ErrorContains(t, err, "lost of p, which does not exist")
}

func TestPackageLimitsIgnoreTypesWithFewMethods(t *testing.T) {
	m := measured{packages: []figures{
		{folder: "small", methods: 20, long: nil, large: nil},
		{folder: "large", methods: 21, long: []string{"f", "g"}, large: []string{"a.go"}},
	}}
	assert.Equal(t, limit.Counts{"small": {0, 0, 0, 0, 0}, "large": {0, 0, 21, 2, 1}}, m.counts()[packageLimits])
}

func TestBestFileOrderMinimizesCallsToEarlierFiles(t *testing.T) {
	for name, c := range map[string]struct {
		arrows []set
		up     int
	}{
		"nothing":     {nil, 0},
		"a line":      {[]set{{0}, {1}, {2}, {4}}, 0},
		"a circle":    {[]set{{2}, {4}, {1}}, 1},
		"a pair":      {[]set{{2}, {1}, {0}}, 1},
		"all to all":  {[]set{{0b110}, {0b101}, {0b011}}, 3},
		"two circles": {[]set{{0b0010}, {0b0101}, {0b1000}, {0b0100}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			order := bestOrder(c.arrows)
			assert.Len(t, order, len(c.arrows))
			assert.Len(t, upward(order, c.arrows), c.up)
		})
	}
}

func TestBestFileOrderIsFoundForManyFiles(t *testing.T) {
	arrows := make([]set, 92)
	arrows[70].add(91)
	arrows[91].add(70)
	assert.Len(t, upward(bestOrder(arrows), arrows), 1)
}

// The function siftedOrder is for circles of calls among many files. Its order may be a little
// worse than the best order.
func TestHeuristicOrderAddsFewCallsToEarlierFiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		circle, arrows := []int{}, make([]set, 10)
		for i := range arrows {
			circle = append(circle, i)
			arrows[i][0] = random.Uint64N(1<<10) & random.Uint64N(1<<10) &^ (1 << i)
		}
		best, sifted := upward(exactOrder(circle, arrows), arrows), upward(siftedOrder(circle, arrows), arrows)
		assert.GreaterOrEqual(t, len(sifted), len(best))
		assert.LessOrEqual(t, len(sifted), len(best)+3)
	}
}

func TestWaysToolPrintsFiguresOfPackagesAndPaths(t *testing.T) {
	p := sources(t, map[string]string{"a.go": "func a() { b() }", "b.go": "func b() { a() }"})
	g := newGraph(p)
	away, err := g.follow(way{"away", "p", "a"})
	require.NoError(t, err)
	m := measured{packages: figuresOf(p, g)}
	away.countUp(m.packages)
	m.walks = []walk{away}
	var out strings.Builder
	m.print(&out)
	assert.Regexp(t, `(?m)^p +2 +1/2 +1/2`, out.String())
	assert.Regexp(t, `(?m)^away +p\.a +2 +1 +2 +1 +1 +1$`, out.String())
	assert.True(t, m.printOne(&out, "p"))
	assert.Contains(t, out.String(), "goes up: b ─▶ a (a)")
	assert.True(t, m.printOne(&out, "away"))
	assert.Contains(t, out.String(), "p.b (b.go:2)")
	assert.False(t, m.printOne(&out, "q"))
}
