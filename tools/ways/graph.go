// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
)

// function is a function or method of a [program], or a package's variable whose initial value
// contains functions, such as a table.
type function struct {
	name   string // such as agent.(*Agent).renew
	in     *pkg
	file   string
	line   int
	lines  int
	calls  []*function // each called function once, in the order of the source
	object types.Object
}

func (f *function) isVariable() bool {
	_, ok := f.object.(*types.Var)
	return ok
}

// graph has all functions of a [program], and the calls between these functions. A function that is
// passed on as a value counts as called. The calls inside a function literal count as calls of the
// function around the literal.
type graph struct {
	functions []*function
	by        map[types.Object]*function
}

func newGraph(p *program) *graph {
	g := &graph{by: map[types.Object]*function{}}
	bodies := map[*function]ast.Node{}
	for _, its := range p.packages {
		for _, file := range its.files {
			for name, node := range declared(file) {
				f := g.declare(p.set, its, name, node)
				bodies[f] = node
			}
		}
	}
	slices.SortFunc(g.functions, func(a, b *function) int {
		return cmp.Or(cmp.Compare(a.in.folder, b.in.folder), cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	implementations := implementationsOf(p)
	for _, f := range g.functions {
		if f.isVariable() {
			g.connect(f, bodies[f], implementations)
		}
	}
	g.functions = slices.DeleteFunc(g.functions, func(f *function) bool {
		plain := f.isVariable() && len(f.calls) == 0
		if plain {
			delete(g.by, f.object)
		}
		return plain
	})
	for _, f := range g.functions {
		g.connect(f, bodies[f], implementations)
	}
	return g
}

// declared returns the functions and the initialised variables of a file.
func declared(file *ast.File) map[*ast.Ident]ast.Node {
	found := map[*ast.Ident]ast.Node{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			found[d.Name] = d
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok && d.Tok == token.VAR && len(v.Values) > 0 {
					found[v.Names[0]] = v
				}
			}
		}
	}
	return found
}

func (g *graph) declare(set *token.FileSet, in *pkg, name *ast.Ident, node ast.Node) *function {
	from, to := set.Position(node.Pos()), set.Position(node.End())
	f := &function{
		in: in, object: in.info.Defs[name], name: in.folder + "." + name.Name,
		file: filepath.Base(from.Filename), line: from.Line, lines: to.Line - from.Line + 1,
	}
	if d, ok := node.(*ast.FuncDecl); ok && d.Recv != nil {
		f.name = in.folder + ".(" + types.ExprString(d.Recv.List[0].Type) + ")." + name.Name
	}
	g.functions = append(g.functions, f)
	if f.object != nil {
		g.by[f.object] = f
	}
	return f
}

// connect adds to f.calls the functions that f uses. If f uses a method of an interface, connect
// also adds this method of each type that implements the interface.
func (g *graph) connect(f *function, body ast.Node, implementations map[*types.Func][]*types.Func) {
	ast.Inspect(body, func(n ast.Node) bool {
		name, ok := n.(*ast.Ident)
		if !ok {
			return true
		}
		used := f.in.info.Uses[name]
		if method, ok := used.(*types.Func); ok {
			used = method.Origin()
			for _, implementation := range implementations[method.Origin()] {
				g.add(f, implementation)
			}
		}
		g.add(f, used)
		return true
	})
}

func (g *graph) add(from *function, used types.Object) {
	to := g.by[used]
	if to != nil && to != from && !slices.Contains(from.calls, to) {
		from.calls = append(from.calls, to)
	}
}

// implementationsOf returns a map, whose keys are the methods of the interfaces in p. Each value
// lists the methods by which types in p implement the key.
func implementationsOf(p *program) map[*types.Func][]*types.Func {
	var interfaces, others []*types.Named
	for _, its := range p.packages {
		for _, name := range its.types.Scope().Names() {
			object, ok := its.types.Scope().Lookup(name).(*types.TypeName)
			if !ok || object.IsAlias() {
				continue
			}
			named, ok := object.Type().(*types.Named)
			switch {
			case !ok || named.TypeParams().Len() > 0:
			case types.IsInterface(named):
				interfaces = append(interfaces, named)
			default:
				others = append(others, named)
			}
		}
	}
	found := map[*types.Func][]*types.Func{}
	for _, named := range interfaces {
		face := named.Underlying().(*types.Interface)
		for _, other := range others {
			pointer := types.NewPointer(other)
			if face.NumMethods() == 0 || !types.Implements(pointer, face) {
				continue
			}
			for method := range face.Methods() {
				object, _, _ := types.LookupFieldOrMethod(pointer, true, method.Pkg(), method.Name())
				if implementation, ok := object.(*types.Func); ok {
					found[method] = append(found[method], implementation.Origin())
				}
			}
		}
	}
	return found
}
