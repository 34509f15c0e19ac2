// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

var update = flag.Bool("update", false, "rewrite generated documents")

// A directive in a test's comment names rows of docs/reference/compatibility.md. A row is a field or a
// behaviour of pods. The test shows that a gated pod keeps this field or behaviour ("carried"), or
// that the webhook refuses the pod, or warns of its workload, with a reason:
//
//	docs/reference/compatibility.md: lifecycle/exit-codes lifecycle/crash-loop carried
//	docs/reference/compatibility.md: pod/host-pid refused SharedProcesses
//	docs/reference/compatibility.md: kinds/only-holders-ready warned RolloutStalls
var directive = regexp.MustCompile(`(?m)^(?:// |# )?docs/reference/compatibility\.md: ((?:[a-z0-9]+/[a-z0-9-]+ )+)(carried|(refused|warned) ([A-Z]\w+))$`)

// mention matches every directive, also a misspelt one.
var mention = regexp.MustCompile(`(?m)^(?:// |# )?(?:docs/(?:[a-z]+/)?)?compat[a-z]*(?:\.md)?:`)

// evidence is one test of one row.
type evidence struct{ row, how, test string }

// archives maps patterns of txtar files to prefixes. Each file that matches a pattern counts
// as a test. The name of the test begins with the prefix of the pattern.
var archives = map[string]string{
	"../mutate/testdata/*.txtar":   "TestGoldenFilesMatchTheWebhooksAnswers/",
	"../cmd/shim/testdata/*.txtar": "TestShimFulfillsEachScriptInTestdata/",
}

// TestCompatibilityPagesAreGeneratedFromTests checks that docs/reference/compatibility.md lists every row
// that the comments of tests name, and docs/evidence/compatibility.md the names of these tests. With
// -update the test rewrites both pages.
func TestCompatibilityPagesAreGeneratedFromTests(t *testing.T) {
	found := append(ofFunctions(t), ofArchives(t)...)
	reference, shown, missing := compatibility(t, found)
	for file, text := range map[string]string{"reference/compatibility.md": reference, "evidence/compatibility.md": shown} {
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		}
		is, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, text, string(is), "run make golden")
	}
	assert.Len(t, missing, notShown, "rows that no test names; notShown may only get smaller: %v", missing)
}

// compatibility returns both pages, and the rows that no test names.
func compatibility(t *testing.T, found []evidence) (reference, shown string, missing []string) {
	t.Helper()
	by := map[string][]evidence{}
	for _, e := range found {
		by[e.row] = append(by[e.row], e)
	}
	var r, s strings.Builder
	r.WriteString("<!-- Generated from the tests by make golden. Do not edit. -->\n\n# Compatibility\n\n" +
		"A gated pod behaves as without the annotation, except that only one pod runs at a time. A pod for which that\n" +
		"is impossible is refused at admission, with a [reason](../troubleshoot/reasons.md) that names the field and a solution. Where\n" +
		"the webhook only warns when the workload is applied, the row says warned. [Each row has its tests](../evidence/compatibility.md).\n")
	s.WriteString("<!-- Generated from the tests by make golden. Do not edit. -->\n\n# What shows the compatibility\n\n" +
		"Each row of [Compatibility](../reference/compatibility.md), with the tests that show it. `git grep 'func TestName('` finds a\n" +
		"test, and `make e2e RUN=TestName` runs one of `test/e2e` on the real cluster. `TestGoldenFilesMatchTheWebhooksAnswers/…` are\n" +
		"pods before and after admission (`mutate/testdata`). `TestShimFulfillsEachScriptInTestdata/…` run the real binary\n" +
		"(`cmd/shim/testdata`). `TestGatedPodKeepsFieldsUnchanged` shows the unchanged fields, and `TestEachFieldOfAPodIsDecided`\n" +
		"requires a decision about each new field of Kubernetes.\n")
	known := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(sections)) {
		number, name, _ := strings.Cut(key, " ")
		fmt.Fprintf(&r, "\n## %s. %s\n\n| | |\n|---|---|\n", number, sections[key].title)
		fmt.Fprintf(&s, "\n## %s. %s\n\n| | shown by |\n|---|---|\n", number, sections[key].title)
		for _, line := range sections[key].rows {
			id := name + "/" + line.id
			assert.False(t, known[id], "%s is listed twice", id)
			known[id] = true
			how, tests := verdict(by[id])
			if len(tests) == 0 {
				missing = append(missing, id)
			}
			fmt.Fprintf(&r, "| %s | %s |\n", line.text, how)
			fmt.Fprintf(&s, "| %s | %s |\n", line.text, strings.Join(tests, " "))
		}
	}
	for id, e := range by {
		assert.True(t, known[id], "%s names %s, which is no row", e[0].test, id)
	}
	r.WriteString(kubernetes)
	r.WriteString(fieldsSection())
	return r.String(), s.String(), missing
}

// kubernetes is the section about versions of Kubernetes. People write its figures, from the output
// of make matrix.
const kubernetes = `
## 10. Versions of Kubernetes

| Kubernetes | missing functions | end-to-end tests |
|---|---|---|
| 1.37.1 | none | all tests, before each change of Metaparticle |
| 1.35.4 | The webhook refuses ` + "`metaparticle.io/gate: pod` (`KubernetesTooOld`)" + `, because this gate needs Kubernetes 1.36. Policies of the kind MutatingAdmissionPolicy are off by default. | 170 tests passed on 2026-11-26. One test failed by a fault of its own, and passed after the repair. 5 tests need the missing functions. |
| 1.33.13 | The functions that 1.35 lacks. Restart rules of containers are missing, too, because these rules need Kubernetes 1.35. | 170 tests passed on 2026-11-26, and no test failed. 6 tests need the missing functions. |

` + "`make matrix`" + ` runs the end-to-end tests on these versions. If a version of Kubernetes lacks a function, the test of this
function skips itself, and names the function. Three further tests run only by commands of their own (` + "`make upgrade`,\n`make rollouts`, and `make e2e SYNC=…`" + `). No test has run on versions that are missing in the table.

Since 2026-11-30 the test cluster has cert-manager 1.21.2; before, only its cainjector was of that version. With
` + "`CERTMANAGER=oldest`" + ` the cluster has 1.13.0, the oldest version that Metaparticle supports. ` + "`make matrix`" + ` takes it on the
oldest Kubernetes.

All these runs used version 1 of cgroups, because the test machine has no memory controller for version 2. With version
2, the kernel kills all processes of a container that runs out of memory, with the shim, as without a gate.
`

// verdict returns the text of a row, and the names of the row's tests. The text has the results of
// these tests. The text of a row without a test is "not shown".
func verdict(found []evidence) (how string, tests []string) {
	var hows []string
	for _, e := range found {
		hows = append(hows, e.how)
		tests = append(tests, "`"+e.test+"`")
	}
	slices.Sort(hows)
	slices.Sort(tests)
	if len(tests) == 0 {
		return "**not shown**", nil
	}
	return strings.Join(slices.Compact(hows), ", "), slices.Compact(tests)
}

// ofFunctions returns the directives above test functions.
func ofFunctions(t *testing.T) (found []evidence) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case filepath.Dir(path) == filepath.Join(root, "docs"):
			return nil
		case !strings.HasSuffix(path, "_test.go") && (!strings.HasSuffix(path, ".go") || !inTestFolder(t, path)):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !mention.Match(text) {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		seen := 0
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Doc != nil && testName.MatchString(f.Name.Name) {
				for _, line := range f.Doc.List {
					seen += len(mention.FindAllString(line.Text, -1))
					found = append(found, read(t, path, line.Text, f.Name.Name)...)
				}
			}
		}
		assert.Len(t, mention.FindAll(text, -1), seen, "%s: a directive is not above a test", path)
		return nil
	}))
	return found
}

// ofArchives returns the directives in the comments of txtar files.
func ofArchives(t *testing.T) (found []evidence) {
	t.Helper()
	for pattern, test := range archives {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			archive, err := txtar.ParseFile(file)
			require.NoError(t, err)
			name := test + strings.TrimSuffix(filepath.Base(file), ".txtar")
			found = append(found, read(t, file, string(archive.Comment), name)...)
		}
	}
	return found
}

func read(t *testing.T, file, comment, test string) (found []evidence) {
	t.Helper()
	all := directive.FindAllStringSubmatch(comment, -1)
	assert.Len(t, all, len(mention.FindAllString(comment, -1)), "%s: a malformed directive of %s", file, test)
	for _, m := range all {
		how := m[2]
		if m[4] != "" {
			assert.True(t, slices.ContainsFunc(slices.Concat(reason.All, reason.Elsewhere), func(e reason.Explanation) bool { return string(e.Reason) == m[4] }),
				"%s: %s is no reason", file, m[4])
			how = m[3] + ": `" + m[4] + "`"
		}
		for row := range strings.FieldsSeq(m[1]) {
			found = append(found, evidence{row, how, test})
		}
	}
	return found
}
