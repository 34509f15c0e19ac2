// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command ways measures how easily a reader can follow the code of the product and of the
// simulation from function to function.
//
// Inside a package, calls should go one way, as between packages. So the command
// puts the files of each package into an order, callers on top. An arrow leads from
// a file to another file. The arrow goes up if the other file is above in that order.
//
//	loop.go:  func (a *Agent) run()  { a.renew() }    loop ─▶ renew
//	renew.go: func (a *Agent) renew() { a.wakeAt() }  renew ─▶ loop, goes up
//	loop.go:  func (a *Agent) wakeAt() {}
//
// There are two kinds of arrows. With "calls", a file calls a function of the other
// file, or passes that function on as a value. With "uses", a file names anything that
// the other file declares: a function, a type, a constant, a field. If a type has
// methods in many files, many arrows of the kind "uses" go up. In the example renew.go
// uses Agent, and loop.go uses renew.go.
//
// Of all orders the command chooses one with the fewest arrows that go up. The figure "5/64"
// means: of 64 arrows, 5 go up in the best of all orders. If no files form a circle, no
// arrow goes up. The other columns of the table show the type with most methods, the
// longest function and the longest file, in lines.
//
// A way begins in the function in which an event begins, such as a renewal. The way
// leads to all functions that are called from there, also through interfaces of the
// product. The column "again" counts calls of functions that were visited before. The
// column "up" counts calls that go up inside a package. The column "circles" counts
// calls that lead back to a function between the beginning of the way and the caller.
// A way may grow, and visit a helper again, so only the columns "up" and "circles" have
// limits.
//
// With a package as an argument the command prints the files of the package. With a way as an
// argument the command prints the functions of the way:
//
//	go run ./tools/ways agent renewal
//
// The tables packages.txt and ways.txt contain limits, which only fall. With -lower the command
// lowers these limits to the measured figures.
package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/tools/limit"
)

// ways are the chains of calls that a new reader of the code follows first.
var ways = []way{
	{"renewal", "agent", "(*hold).renew"},
	{"grant", "agent", "(grants).grant"},
	{"pod", "mutate/admit", "(podHandler).Handle"},
}

func main() { limit.Command("ways", run) }

func run(w io.Writer, root string, lower bool, chosen []string) error {
	m, err := measure(root)
	switch {
	case err != nil:
		return err
	case lower:
		return m.lower(filepath.Join(root, "tools/ways"))
	case len(chosen) > 0:
		for _, name := range chosen {
			if !m.printOne(w, filepath.Clean(name)) {
				return fmt.Errorf("%s is neither a package that is measured nor a way: name a folder of tools/ways/%s, or renewal, grant or pod", name, packageLimits)
			}
		}
		return nil
	}
	m.print(w)
	return nil
}

// measured has the figures of all packages and ways.
type measured struct {
	packages []figures
	walks    []walk
}

func measure(root string) (measured, error) {
	p, err := load(root, product)
	if err != nil {
		return measured{}, err
	}
	s, err := load(root, simulation)
	if err != nil {
		return measured{}, err
	}
	g := newGraph(p)
	m := measured{packages: slices.Concat(figuresOf(p, g), figuresOf(s, newGraph(s)))}
	for _, w := range ways {
		walk, err := g.follow(w)
		if err != nil {
			return m, err
		}
		walk.countUp(m.packages)
		m.walks = append(m.walks, walk)
	}
	return m, nil
}

const (
	packageLimits = "packages.txt"
	wayLimits     = "ways.txt"
)

// counts returns the figures for each table of limits, by the table's file. If no type of a package
// has more than mostMethods methods, the column of methods contains 0 for this package.
func (m measured) counts() map[string]limit.Counts {
	packages, walks := limit.Counts{}, limit.Counts{}
	for _, f := range m.packages {
		methods := f.methods
		if methods <= mostMethods {
			methods = 0
		}
		packages[f.folder] = []int{len(f.calls.up), len(f.uses.up), methods, len(f.long), len(f.large)}
	}
	for _, w := range m.walks {
		walks[w.name] = []int{w.up, w.circles}
	}
	return map[string]limit.Counts{packageLimits: packages, wayLimits: walks}
}

func (m measured) lower(folder string) error {
	for file, counts := range m.counts() {
		file = filepath.Join(folder, file)
		limits, err := limit.Read(file)
		if err != nil {
			return err
		}
		limits.Split(counts)
		limits.Lower(counts, limit.Max)
		if err := limits.Write(file); err != nil {
			return err
		}
	}
	return nil
}

func (m measured) print(w io.Writer) {
	fmt.Fprintf(w, "%-26s %5s %9s %9s   %-22s %-6s %s\n", "package", "files", "calls up", "uses up", "most methods", "lines", "of function, of file")
	for _, f := range m.packages {
		fmt.Fprintf(w, "%-26s %5d %9s %9s   %-22s %6d %d\n", f.folder, f.files, f.calls, f.uses,
			fmt.Sprintf("%d %s", f.methods, f.largest), f.lines, f.length)
	}
	fmt.Fprintf(w, "\n%-10s %-30s %9s %8s %6s %6s %6s %8s\n", "way", "from", "functions", "packages", "calls", "again", "up", "circles")
	for _, k := range m.walks {
		fmt.Fprintf(w, "%-10s %-30s %9d %8d %6d %6d %6d %8d\n", k.name, k.functions[0].name, len(k.functions), k.packages(), k.calls, k.again, k.up, k.circles)
	}
	fmt.Fprint(w, "\nThe files of a package, or the functions of a way: make ways PKG=agent\n")
}

// printOne prints the files of a package, or the functions of a way through the code (see the
// package comment). The argument "name" is the package's folder, or the name of the way. If
// neither exists, printOne returns false.
func (m measured) printOne(w io.Writer, name string) bool {
	if i := slices.IndexFunc(m.packages, func(f figures) bool { return f.folder == name }); i >= 0 {
		f := m.packages[i]
		fmt.Fprintf(w, "%s: the longest function is %s, the type with most methods %s.\n", name, f.longest, f.largest)
		for _, long := range slices.Concat(f.long, f.large) {
			fmt.Fprintf(w, "too long: %s\n", long)
		}
		f.calls.print(w, "calls")
		f.uses.print(w, "uses")
		return true
	}
	if i := slices.IndexFunc(m.walks, func(k walk) bool { return k.name == name }); i >= 0 {
		for _, f := range m.walks[i].functions {
			fmt.Fprintf(w, "%s (%s:%d)\n", f.name, f.file, f.line)
		}
		return true
	}
	return false
}

// print prints the files in their best order. For each arrow that goes up, print also prints
// the names that cause the arrow.
func (l layers) print(w io.Writer, kind string) {
	fmt.Fprintf(w, "%s, from the top: %s\n", kind, strings.Join(l.order, " "))
	for _, pair := range l.up {
		names := slices.Sorted(maps.Keys(l.names[pair]))
		fmt.Fprintf(w, "  goes up: %s ─▶ %s (%s)\n", pair[0], pair[1], strings.Join(names, ", "))
	}
}
