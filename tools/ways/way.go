// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// way names an event, such as a renewal, and the function in which the event begins. The package of
// this function is in the given folder, or in a folder below.
type way struct{ name, folder, from string }

// walk has the functions that [graph.follow] visits on a way.
type walk struct {
	way
	functions []*function // in the order of their first visit
	calls     int
	// again counts the calls that lead to a function that was visited before.
	again int
	// circles counts the calls that lead back to a function between the beginning of the way and
	// the caller. The field "again" counts those calls, too.
	circles int
	// up counts the calls inside a package that go up: to a file above the caller's file, in
	// the package's best order of files.
	up int
}

// follow visits each function that a way may lead to, once. The walk is depth first, and
// takes the calls of a function in the order of the source.
func (g *graph) follow(w way) (walk, error) {
	found := walk{way: w}
	open := map[*function]bool{}
	visited := map[*function]bool{}
	var visit func(f *function)
	visit = func(f *function) {
		visited[f], open[f] = true, true
		found.functions = append(found.functions, f)
		for _, to := range f.calls {
			found.calls++
			switch {
			case open[to]:
				found.circles++
				found.again++
			case visited[to]:
				found.again++
			default:
				visit(to)
			}
		}
		delete(open, f)
	}
	for _, f := range g.functions {
		below := f.in.folder == w.folder || strings.HasPrefix(f.in.folder, w.folder+"/")
		if below && f.name == f.in.folder+"."+w.from {
			visit(f)
			return found, nil
		}
	}
	return found, fmt.Errorf("the way of %s begins in %s of %s, which does not exist", w.name, w.from, w.folder)
}

// countUp counts the calls of the walk that go up: to a file above the caller's file, in the
// package's best order of files. In that order, the fewest calls of the package go up.
func (w *walk) countUp(packages []figures) {
	for _, f := range w.functions {
		its := packages[slices.IndexFunc(packages, func(p figures) bool { return p.folder == f.in.folder })]
		for _, to := range f.calls {
			if to.in == f.in && slices.Contains(its.calls.up, [2]string{stem(f.file), stem(to.file)}) {
				w.up++
			}
		}
	}
}

// packages returns the number of packages of the walk.
func (w walk) packages() int {
	met := map[*pkg]bool{}
	for _, f := range w.functions {
		met[f.in] = true
	}
	return len(met)
}
