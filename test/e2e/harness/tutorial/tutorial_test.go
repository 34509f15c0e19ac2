// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTutorialStepsAreParsedInPageOrder(t *testing.T) {
	page := strings.ReplaceAll(`# A page

'''yaml
# pod.yaml
kind: Pod
'''

'''yaml
kind: Nothing
'''

'''console
$ kubectl apply \\
  -f pod.yaml
pod/a created
$ false
$ echo $?
1
'''
`, "'''", "```")
	page = strings.ReplaceAll(page, `\\`, `\`)
	steps, err := Parse([]byte(page))
	require.NoError(t, err)
	assert.Equal(t, []Step{
		{File: "pod.yaml", Text: "# pod.yaml\nkind: Pod\n"},
		{Command: "kubectl apply \\\n  -f pod.yaml", Output: []string{"pod/a created"}},
		{Command: "false", Fails: true},
		{Command: "echo $?", Output: []string{"1"}},
	}, steps)
}

func TestTutorialSessionThatBeginsWithOutputIsRefused(t *testing.T) {
	_, err := Parse([]byte("```console\nno command\n```\n"))
	assert.ErrorContains(t, err, "no command")
}

func TestTutorialOutputMayDifferInSpacesAndEllipses(t *testing.T) {
	for name, c := range map[string]struct {
		shown, output string
		want          bool
	}{
		"equal":                      {"a b\nc", "a b\nc", true},
		"another number of spaces":   {"NAME  AGE", "NAME       AGE  ", true},
		"no space":                   {"NAME AGE", "NAMEAGE", false},
		"any text within a line":     {"pod/biller-… condition met", "pod/biller-7d4c-x2x9z condition met", true},
		"no text within a line":      {"a…b", "ab", true},
		"text before the shown one":  {"b…", "a b", false},
		"text after the shown one":   {"…a", "a b", false},
		"a pattern is plain text":    {"a.b", "axb", false},
		"any number of lines":        {"a\n…\nd", "a\nb\nc\nd", true},
		"no line":                    {"a\n…\nb", "a\nb", true},
		"a line too many":            {"a", "a\nb", false},
		"a line too few":             {"a\nb", "a", false},
		"any text is one line only":  {"a…", "a\nb", false},
		"the last line is another":   {"…\nd", "a\nb", false},
		"no output at all":           {"", "", true},
		"output where none is shown": {"", "a", false},
		"kubectl's cancelled watch":  {"a", `I1125 14:37:02.300710   13525 reflector.go:664] "Warning: watch ended with error" err="context canceled"` + "\na", true},
		"another line of a log":      {"a", `E1125 14:37:02.300710   13525 reflector.go:664] "Failed to watch" err="forbidden"` + "\na", false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, Matches(lines(c.shown), lines(c.output)))
		})
	}
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func TestTutorialShellKeepsVariablesBetweenCommands(t *testing.T) {
	shell, err := Start(t.Context(), t.TempDir(), os.Environ())
	require.NoError(t, err)
	for _, c := range []struct {
		command string
		output  []string
		code    int
	}{
		{"a=1", nil, 0},
		{"echo $a; printf 2", []string{"1", "2"}, 0},
		{"echo wrong >&2; false", []string{"wrong"}, 1},
		{"echo $?", []string{"1"}, 0},
		{"cat", nil, 0},
		{"pwd >file", nil, 0},
		{"ls", []string{"file"}, 0},
	} {
		code := 0
		if c.command == "echo $?" {
			code = 1
		}
		output, code, err := shell.Run(c.command, code)
		require.NoError(t, err)
		assert.Equal(t, c.output, output, c.command)
		assert.Equal(t, c.code, code, c.command)
	}
	_, _, err = shell.Run("exit 3", 0)
	require.Error(t, err)
	assert.ErrorContains(t, shell.Close(), "exit status 3")
}

// TestEachTutorialHasATestAndANamespace checks two rules for tutorials, and needs no cluster.
// Each page must have a test. The commands of a page must create, use and delete a namespace
// with the name of the page.
func TestEachTutorialHasATestAndANamespace(t *testing.T) {
	const docs, tests = "../../../../docs/tutorials", "../../tutorials/tutorials.go"
	source, err := os.ReadFile(tests)
	require.NoError(t, err)
	pages, err := filepath.Glob(filepath.Join(docs, "*.md"))
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		assert.Contains(t, string(source), `follow(t, "`+name+`")`)
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		steps, err := Parse(text)
		require.NoError(t, err, page)
		var commands []string
		for _, step := range steps {
			if step.File == "" {
				commands = append(commands, step.Command)
				assert.NotRegexp(t, `\b(sleep|until|while)\b`, step.Command, "%s: a page waits for events", page)
			}
		}
		require.Greater(t, len(commands), 5, page)
		assert.Equal(t, "kubectl create namespace "+name, commands[0])
		assert.Equal(t, "kubectl config set-context --current --namespace="+name, commands[1])
		assert.Equal(t, "kubectl delete namespace "+name+" --wait=false", commands[len(commands)-1])
	}
}
