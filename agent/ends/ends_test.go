// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package ends

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The Events, the page of pods, the metrics' page and the policies are checked for the rows of All, so a row that is not
// there would escape these tests.
func TestAllHasEachRowOnce(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "ends.go", nil, 0)
	require.NoError(t, err)
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if value, ok := n.(*ast.CompositeLit); ok {
			if of, ok := value.Type.(*ast.Ident); ok && of.Name == "Row" {
				declared++
			}
		}
		return true
	})
	seen := map[*Row]bool{}
	for _, r := range All() {
		seen[r] = true
		assert.NotEmpty(t, r.Reason)
	}
	assert.Len(t, All(), declared)
	assert.Len(t, seen, declared)
}
