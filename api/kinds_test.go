// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"io/fs"
	"os"
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

// The tables in the README are written by hand.
func TestReadmeListsEachAnnotation(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	for _, a := range Annotations {
		end := "[`:]"
		if a.Kind != nil {
			end = ": " // the row of a claim also shows a value
		}
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(a.Key) + end)
		assert.True(t, row.Match(readme), "README.md lacks a row for %s", a.Key)
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
