// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// actorsPage has a row for each threat, and boundsPage one for each bound.
const (
	actorsPage = "evidence/security-actors.md"
	boundsPage = "evidence/security-bounds.md"
)

// rowsOf returns the cells of all tables of a page, by row, without the head of each table.
func rowsOf(t *testing.T, file string) [][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var rows [][]string
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "| ") || i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		rows = append(rows, cells)
	}
	return rows
}

var namedTest = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")

// TestSecurityPageCitesOnlyExistingTests checks that each row about a threat names at least one
// test, and that each named test exists.
func TestSecurityPageCitesOnlyExistingTests(t *testing.T) {
	exist := tests(t)
	threats := 0
	for _, row := range rowsOf(t, actorsPage) {
		if len(row) != 5 {
			continue
		}
		threats++
		named := namedTest.FindAllStringSubmatch(row[4], -1)
		assert.NotEmpty(t, named, "no test of: %s may %s", row[0], row[1])
		for _, match := range named {
			assert.True(t, exist[match[1]], "security-actors.md names %s, which does not exist", match[1])
		}
	}
	assert.NotZero(t, threats)
}

// packages has the folders of some packages. The page of bounds names constants of these
// packages.
var packages = map[string]string{
	"api": "../api", "admit": "../mutate/admit", "console": "../console", "enroll": "../enroll", "feature": "../mutate/feature", "listing": "../listing", "load": "../mutate/load",
	"mutate": "../mutate",
	"reason": "../mutate/reason", "registry": "../mutate/image/registry", "serve": "../console/serve", "webhook": "../cmd/webhook",
}

// constants returns the constants of the packages, by package and name.
func constants(t *testing.T) map[string]constant.Value {
	t.Helper()
	found := map[string]constant.Value{}
	for name, directory := range packages {
		fset := token.NewFileSet()
		sources, err := filepath.Glob(filepath.Join(directory, "*.go"))
		require.NoError(t, err)
		var files []*ast.File
		for _, source := range sources {
			if strings.HasSuffix(source, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(fset, source, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			files = append(files, file)
		}
		// The type checker can import only package time, whose units the constants need. Code that
		// needs other imports has type errors, which do not matter.
		config := types.Config{Importer: clock{}, Error: func(error) {}, IgnoreFuncBodies: true}
		checked, _ := config.Check(name, fset, files, nil)
		for _, its := range checked.Scope().Names() {
			if c, ok := checked.Scope().Lookup(its).(*types.Const); ok && c.Val().Kind() != constant.Unknown {
				found[name+"."+its] = c.Val()
			}
		}
	}
	return found
}

// clock is an importer for the type checker. The package "time" of this importer has only the type
// Duration and the units, because the constants that the page of bounds names need nothing else.
type clock struct{}

// Import implements [types.Importer].
func (clock) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, path[strings.LastIndex(path, "/")+1:])
	if path == "time" {
		duration := types.NewNamed(types.NewTypeName(token.NoPos, p, "Duration", nil), types.Typ[types.Int64], nil)
		p.Scope().Insert(duration.Obj())
		for unit, nanoseconds := range map[string]int64{"Millisecond": 1e6, "Second": 1e9, "Minute": 60e9, "Hour": 3600e9} {
			p.Scope().Insert(types.NewConst(token.NoPos, p, unit, duration, constant.MakeInt64(nanoseconds)))
		}
	}
	p.MarkComplete()
	return p, nil
}

var (
	qualified = regexp.MustCompile(`\b(?:api|admit|console|enroll|feature|listing|load|mutate|reason|registry|serve|webhook)\.\w+\b`)
	amount    = regexp.MustCompile(`^([\d.]+) ?(ms|s|h|KiB|MiB|%)?$`)
	units     = map[string]float64{"": 1, "%": 1, "ms": 1e6, "s": 1e9, "h": 3600e9, "KiB": 1 << 10, "MiB": 1 << 20}
)

// written returns the amount in a cell: a number of bytes or nanoseconds, or a plain number.
func written(t *testing.T, cell string) float64 {
	t.Helper()
	match := amount.FindStringSubmatch(cell)
	require.NotNil(t, match, "cell %q has no amount", cell)
	number := constant.MakeFromLiteral(match[1], token.FLOAT, 0)
	value, _ := constant.Float64Val(number)
	return value * units[match[2]]
}

// TestBoundsOnSecurityPageEqualConstantsInCode compares each bound, and each formula of bounds, with
// the constants of the code.
func TestBoundsOnSecurityPageEqualConstantsInCode(t *testing.T) {
	all := constants(t)
	named, derived := map[string]bool{}, 0
	for _, row := range rowsOf(t, boundsPage) {
		if len(row) != 3 {
			continue
		}
		if bound := strings.Trim(row[0], "`"); qualified.FindString(bound) == bound && bound != "" {
			named[bound] = true
			if assert.Contains(t, all, bound, boundsPage+" names a constant that does not exist") {
				is, _ := constant.Float64Val(constant.ToFloat(all[bound]))
				assert.InDelta(t, is, written(t, row[1]), 0.5, bound)
			}
			continue
		}
		formula := strings.Trim(row[1], "`")
		if strings.Contains(formula, "`") {
			continue // the cell contains only words
		}
		derived++
		formula = qualified.ReplaceAllStringFunc(formula, func(name string) string {
			require.Contains(t, all, name)
			return all[name].ExactString()
		})
		value, err := types.Eval(token.NewFileSet(), nil, token.NoPos, formula)
		require.NoError(t, err, row[1])
		is, _ := constant.Float64Val(constant.ToFloat(value.Value))
		assert.InEpsilon(t, is, written(t, row[2]), 0.002, "%s: %s", row[0], row[1])
	}
	assert.NotZero(t, derived)
	for name := range all {
		if its, ok := strings.CutPrefix(name, "registry."); ok && regexp.MustCompile(`^max[A-Z]`).MatchString(its) {
			assert.True(t, named[name], "security-bounds.md lacks the bound %s", name)
		}
	}
}
