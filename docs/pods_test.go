// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/ends"
)

// reported are the files whose constants are the reasons of pod conditions and Events. The value is
// the pattern of the names of these constants.
var reported = map[string]string{
	"agent/status/reasons.go": `^(Ready|event)`,
	"agent/wait/notices.go":   `^event(Waits|NotMet)$`,
	"agent/gate/gate.go":      `^Reason`,
	"api/names.go":            `^Reason(Acquired|Released|ChildRunning|InTurn|WaitsForItsTurn|AsksForItsTurn)$`,
}

func TestPodsPageListsEachReasonOfAgents(t *testing.T) {
	page, err := os.ReadFile("troubleshoot/pods.md")
	require.NoError(t, err)
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\|").FindAllStringSubmatch(string(page), -1) {
		for _, reason := range regexp.MustCompile("`([A-Za-z]+)`").FindAllStringSubmatch(row[1], -1) {
			listed[reason[1]] = true
		}
	}
	exist := map[string]bool{"Unhealthy": true} // agent/probe has this reason of the kubelet
	for file, names := range reported {
		for _, reason := range texts(t, filepath.Join(root, file), regexp.MustCompile(names)) {
			exist[reason] = true
			assert.True(t, listed[reason], "docs/troubleshoot/pods.md lacks a row for %s of %s", reason, file)
		}
	}
	for _, why := range ends.All() {
		exist[why.Reason] = true
		assert.True(t, listed[why.Reason], "docs/troubleshoot/pods.md lacks a row for %s of agent/ends", why.Reason)
	}
	for reason := range listed {
		assert.True(t, exist[reason], "docs/troubleshoot/pods.md has a row for %s, which no agent reports", reason)
	}
}

// texts returns the values of the file's string constants with a name that the pattern matches.
func texts(t *testing.T, file string, names *regexp.Regexp) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	var found []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !names.MatchString(spec.Names[0].Name) {
			return true
		}
		if value, ok := spec.Values[0].(*ast.BasicLit); ok && value.Kind == token.STRING {
			text, err := strconv.Unquote(value.Value)
			require.NoError(t, err)
			found = append(found, text)
		}
		return true
	})
	require.NotEmpty(t, found, file)
	return found
}
