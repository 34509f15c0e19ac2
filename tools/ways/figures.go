// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
)

// These limits bound the methods of a type, the lines of a function, and the lines of a file. The
// linter also limits the length of a function, to a few lines more.
const (
	mostMethods = 20
	mostLines   = 70
	mostLength  = 400
)

// figures are the counts of a package.
type figures struct {
	folder  string
	files   int
	calls   layers // the best order of the files, judged by the calls between their functions
	uses    layers // the best order of the files, judged by the use of names from other files
	methods int    // the number of methods of the type with the most methods
	largest string
	lines   int // the lines of the longest function
	longest string
	length  int      // the lines of the longest file
	long    []string // functions that are too long
	large   []string // files that are too long
}

// layers are the files of a package in the order in which the fewest arrows between files go up.
type layers struct {
	order  []string
	arrows int                           // the number of all arrows
	up     [][2]string                   // the arrows that go up
	names  map[[2]string]map[string]bool // the names that cause each arrow
}

// String returns the number of arrows that go up, and the number of all arrows.
func (l layers) String() string { return fmt.Sprintf("%d/%d", len(l.up), l.arrows) }

func figuresOf(p *program, g *graph) []figures {
	var all []figures
	for _, its := range p.packages {
		f := figures{folder: its.folder, files: len(its.files)}
		f.countFunctions(its, g)
		for _, file := range its.files {
			f.countFile(p.set.File(file.Pos()))
		}
		f.calls = layersOf(p, its, func(o types.Object) bool { return g.by[o] != nil })
		f.uses = layersOf(p, its, func(types.Object) bool { return true })
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b figures) int { return strings.Compare(a.folder, b.folder) })
	return all
}

// countFunctions counts methods, and the lines of functions.
func (f *figures) countFunctions(its *pkg, g *graph) {
	methods := map[string]int{}
	for _, function := range g.functions {
		if function.in != its {
			continue
		}
		method, ok := function.object.(*types.Func)
		if !ok {
			continue
		}
		if function.lines > mostLines {
			f.long = append(f.long, function.name)
		}
		if function.lines > f.lines {
			f.lines, f.longest = function.lines, function.name
		}
		if receiver := method.Signature().Recv(); receiver != nil {
			of := receiverName(receiver.Type())
			methods[of]++
			if methods[of] > f.methods {
				f.methods, f.largest = methods[of], of
			}
		}
	}
}

func (f *figures) countFile(file *token.File) {
	f.length = max(f.length, file.LineCount())
	if file.LineCount() > mostLength {
		f.large = append(f.large, filepath.Base(file.Name()))
	}
}

func receiverName(of types.Type) string {
	if pointer, ok := of.(*types.Pointer); ok {
		of = pointer.Elem()
	}
	if named, ok := of.(*types.Named); ok {
		return named.Obj().Name()
	}
	return of.String()
}

// layersOf orders the files of a package. An arrow leads from one file to another if the
// first file names a thing that the second file declares. A thing makes an arrow only if
// counts(thing) is true.
func layersOf(p *program, its *pkg, counts func(types.Object) bool) layers {
	file := func(at token.Pos) string { return stem(filepath.Base(p.set.Position(at).Filename)) }
	var names []string
	for _, f := range its.files {
		names = append(names, file(f.Pos()))
	}
	slices.Sort(names)
	l := layers{names: map[[2]string]map[string]bool{}}
	arrows := make([]set, len(names))
	for name, object := range its.info.Uses {
		if method, ok := object.(*types.Func); ok {
			object = method.Origin()
		}
		if object.Pkg() != its.types || !counts(object) {
			continue
		}
		if from, to := file(name.Pos()), file(object.Pos()); from != to {
			arrows[slices.Index(names, from)].add(slices.Index(names, to))
			pair := [2]string{from, to}
			if l.names[pair] == nil {
				l.names[pair] = map[string]bool{}
			}
			l.names[pair][object.Name()] = true
		}
	}
	order := bestOrder(arrows)
	for _, i := range order {
		l.order = append(l.order, names[i])
		l.arrows += len(arrows[i].all())
	}
	for _, pair := range upward(order, arrows) {
		l.up = append(l.up, [2]string{names[pair[0]], names[pair[1]]})
	}
	return l
}

func stem(file string) string { return strings.TrimSuffix(file, ".go") }
