// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/metaparticle-io/metaparticle"

// product has the packages that are shipped.
var product = []string{"./agent/...", "./api/...", "./cmd/...", "./console/...", "./enroll/...", "./mutate/...", "./pages/..."}

// simulation has the packages of the simulation. The command measures these packages, too,
// because the simulation has more code than most folders of the product.
var simulation = []string{"./sim/..."}

// pkg is a package, without its tests.
type pkg struct {
	folder string // the path of the folder, from the root of the repository
	files  []*ast.File
	info   *types.Info
	types  *types.Package
}

// program is the product or the simulation, type-checked.
type program struct {
	set      *token.FileSet
	packages []*pkg
}

// listed is the output of go list for a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// load type-checks the packages of the patterns. Types of other modules come from the compiler's
// export data, so the first load compiles these modules.
func load(root string, patterns []string) (*program, error) {
	list := exec.Command("go", append([]string{"list", "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles,DepOnly"}, patterns...)...) //nolint:noctx // go list ends
	list.Dir = root
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	exports, own := map[string]string{}, []listed{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := decoder.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		exports[l.ImportPath] = l.Export
		if strings.HasPrefix(l.ImportPath, module+"/") {
			own = append(own, l)
		}
	}
	p := &program{set: token.NewFileSet()}
	checked := checkedPackages{own: map[string]*types.Package{}}
	checked.others = importer.ForCompiler(p.set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, l := range own { // a package comes after all that it imports
		loaded, err := p.check(l, checked)
		if err != nil {
			return nil, err
		}
		checked.own[l.ImportPath] = loaded.types
		if !l.DepOnly {
			p.packages = append(p.packages, loaded)
		}
	}
	return p, nil
}

func (p *program) check(l listed, imports types.Importer) (*pkg, error) {
	loaded := &pkg{
		folder: strings.TrimPrefix(l.ImportPath, module+"/"),
		info: &types.Info{
			Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
		},
	}
	for _, name := range l.GoFiles {
		file, err := parser.ParseFile(p.set, filepath.Join(l.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		loaded.files = append(loaded.files, file)
	}
	var err error
	loaded.types, err = (&types.Config{Importer: imports}).Check(l.ImportPath, p.set, loaded.files, loaded.info)
	return loaded, err
}

// checkedPackages takes a package from the field "own", if load has already type-checked the
// package. Otherwise the importer "others" imports the package.
type checkedPackages struct {
	own    map[string]*types.Package
	others types.Importer
}

// Import implements [types.Importer].
func (c checkedPackages) Import(path string) (*types.Package, error) {
	if own := c.own[path]; own != nil {
		return own, nil
	}
	return c.others.Import(path)
}
