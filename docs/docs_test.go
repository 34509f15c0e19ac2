// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package docs checks the repository's Markdown pages: each link has a target, and each guarantee
// names tests that exist.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gomarkdown/markdown"
	"github.com/gomarkdown/markdown/ast"
	"github.com/gomarkdown/markdown/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = ".."

func documents(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		found = append(found, files...)
	}
	require.NotEmpty(t, found)
	return found
}

func parse(t *testing.T, file string) ast.Node {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return markdown.Parse(text, parser.NewWithExtensions(parser.CommonExtensions))
}

func TestLinksInDocumentsHaveTargets(t *testing.T) {
	for _, file := range documents(t) {
		ast.WalkFunc(parse(t, file), func(node ast.Node, entering bool) ast.WalkStatus {
			link, ok := node.(*ast.Link)
			if !ok || !entering {
				return ast.GoToNext
			}
			target, _, _ := strings.Cut(string(link.Destination), "#")
			if target != "" && !strings.Contains(target, "://") {
				_, err := os.Stat(filepath.Join(filepath.Dir(file), target)) // a folder stands for its first page
				assert.NoError(t, err, "linked from %s", file)
			}
			return ast.GoToNext
		})
	}
}

// brokenFence matches a line that begins with the fence of a code block and continues with a text.
// A renderer then makes a paragraph instead of a code block, and joins the lines of a command.
var brokenFence = regexp.MustCompile("(?m)^ *```[a-z]* .*$")

func TestCodeBlocksBeginOnLinesOfTheirOwn(t *testing.T) {
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Empty(t, brokenFence.FindAllString(string(text), -1), file)
	}
}

// Messages name a page by its address. Everything that a program says is in the code that this test reads.
func TestMessagesNameExistingPagesAndHeadings(t *testing.T) {
	named := regexp.MustCompile(`api\.Repository ?\+ ?"([^"#):. ]+\.md)(?:#([a-z0-9-]+))?`)
	found := 0
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		source, err := os.ReadFile(path)
		for _, match := range named.FindAllStringSubmatch(string(source), -1) {
			found++
			page := filepath.Join(root, match[1])
			if assert.FileExists(t, page, path) && match[2] != "" {
				assert.True(t, slices.ContainsFunc(headings(t, page), func(heading string) bool {
					return strings.ReplaceAll(strings.ToLower(heading), " ", "-") == match[2]
				}), "%s: %s has no heading %s", path, match[1], match[2])
			}
		}
		return err
	}))
	assert.GreaterOrEqual(t, found, 10)
}

var testName = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)

// Each item of a numbered list of the page of evidence is a guarantee, and has a heading with this
// number on the page guarantees.md. At least one of its tests runs at each commit, so not only in
// make e2e.
func TestEachGuaranteeNamesATestOfMakeTest(t *testing.T) {
	const page = "evidence/guarantees.md"
	exist := tests(t)
	later := onlyOfMakeE2E(t)
	items := 0
	ast.WalkFunc(parse(t, page), func(node ast.Node, entering bool) ast.WalkStatus {
		item, ok := node.(*ast.ListItem)
		if !ok || !entering || item.ListFlags&ast.ListTypeOrdered == 0 {
			return ast.GoToNext
		}
		items++
		named := namedTests(t, page, item, exist)
		assert.NotEmpty(t, slices.DeleteFunc(named, func(name string) bool { return later[name] }), "guarantee without a test of make test: %s", ast.GetFirstChild(item))
		return ast.SkipChildren
	})
	var numbers []string
	for _, heading := range headings(t, "guarantees.md") {
		if number, _, ok := strings.Cut(heading, ". "); ok {
			numbers = append(numbers, number)
			assert.Equal(t, strconv.Itoa(len(numbers)), number, heading)
		}
	}
	assert.NotZero(t, items)
	assert.Len(t, numbers, items, "each guarantee has a heading, and an item in %s", page)
}

// headings returns the texts of the headings of a page.
func headings(t *testing.T, file string) (found []string) {
	t.Helper()
	ast.WalkFunc(parse(t, file), func(node ast.Node, entering bool) ast.WalkStatus {
		if heading, ok := node.(*ast.Heading); ok && entering {
			found = append(found, text(heading))
		}
		return ast.GoToNext
	})
	return found
}

// onlyOfMakeE2E returns the end-to-end tests that make test leaves out.
func onlyOfMakeE2E(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, in := range []struct {
		file  string
		name  *regexp.Regexp
		later bool
	}{
		{"e2e_test.go", regexp.MustCompile(`(?m)^\t"(Test\w+)",$`), true},
		{"harness/share/share.go", regexp.MustCompile(`(?m)^\t"(Test\w+)": +\{`), false},
	} {
		text, err := os.ReadFile(filepath.Join(endToEnd, in.file))
		require.NoError(t, err)
		names := in.name.FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, names, in.file)
		for _, match := range names {
			found[match[1]] = in.later
		}
	}
	return found
}

func TestEachPageCitesOnlyExistingTests(t *testing.T) {
	exist := tests(t)
	for _, file := range documents(t) {
		namedTests(t, file, parse(t, file), exist)
	}
}

var (
	// goalInCode matches a line of code that calls make, with the target.
	goalInCode = regexp.MustCompile(`(?m)^(?:\$ )?make ([a-z][a-z0-9-]*)`)
	// pluginInCode matches a call of the kubectl plugin, with the command.
	pluginInCode = regexp.MustCompile(`kubectl metaparticle ([a-z]+)`)
	// pluginUsage matches a line of the plugin's usage text, with the command.
	pluginUsage = regexp.MustCompile(`(?m)^  kubectl metaparticle ([a-z]+)`)
)

func TestEachPageCitesOnlyExistingCommands(t *testing.T) {
	for _, of := range []struct {
		file          string
		source, cited *regexp.Regexp
	}{
		{"Makefile", goal, goalInCode},
		{"cmd/kubectl-metaparticle/main.go", pluginUsage, pluginInCode},
	} {
		text, err := os.ReadFile(filepath.Join(root, of.file))
		require.NoError(t, err)
		exist := map[string]bool{}
		for _, match := range of.source.FindAllStringSubmatch(string(text), -1) {
			exist[match[1]] = true
		}
		cited := 0
		for _, file := range documents(t) {
			for _, code := range codes(t, file) {
				for _, match := range of.cited.FindAllStringSubmatch(code, -1) {
					cited++
					assert.True(t, exist[match[1]], "%s names %q, which %s does not have", file, match[0], of.file)
				}
			}
		}
		assert.NotZero(t, cited, of.file)
	}
}

// codes returns the texts of the page that are code: whole blocks, and parts of sentences.
func codes(t *testing.T, file string) (found []string) {
	t.Helper()
	ast.WalkFunc(parse(t, file), func(node ast.Node, entering bool) ast.WalkStatus {
		switch node.(type) {
		case *ast.Code, *ast.CodeBlock:
			if entering {
				found = append(found, string(node.AsLeaf().Literal))
			}
		}
		return ast.GoToNext
	})
	return found
}

// namedTests returns the tests that the part of the page names. Each of them must exist.
func namedTests(t *testing.T, page string, part ast.Node, exist map[string]bool) (named []string) {
	t.Helper()
	ast.WalkFunc(part, func(node ast.Node, entering bool) ast.WalkStatus {
		if code, ok := node.(*ast.Code); ok && entering && testName.Match(code.Literal) {
			named = append(named, string(code.Literal))
			assert.True(t, exist[string(code.Literal)], "%s names %s, which does not exist", page, code.Literal)
		}
		return ast.GoToNext
	})
	return named
}

var testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`)

func tests(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case strings.HasPrefix(path, endToEnd) && strings.HasSuffix(path, ".go"):
			// The end-to-end tests are in files of test/e2e whose names do not end in _test.go. The
			// file e2e_test.go has the name of a new test only after "make golden".
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, match := range testFunction.FindAllSubmatch(text, -1) {
			found[string(match[1])] = true
		}
		return err
	}))
	return found
}

// TestArchitecturePageStaysShort bounds the page that every newcomer reads first, and its words: other
// words are those of Kubernetes, or stand where their type is.
func TestArchitecturePageStaysShort(t *testing.T) {
	text, err := os.ReadFile("architecture.md")
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), "| word | meaning |\n")
	require.True(t, ok)
	words, after, ok := strings.Cut(rest, "\n## ")
	require.True(t, ok)
	assert.LessOrEqual(t, strings.Count(before+after, "\n"), 130)
	assert.LessOrEqual(t, strings.Count(words, "\n| ")+1, 51, "50 words, and the line below the head")
}

// The part of the page above the vocabulary lists all packages of agent and mutate. Package mutatetest
// is missing there, because only tests use that package.
func TestArchitecturePageListsPackagesOfAgentAndMutate(t *testing.T) {
	text, err := os.ReadFile("architecture.md")
	require.NoError(t, err)
	list, _, ok := strings.Cut(string(text), "\n## Words\n")
	require.True(t, ok)
	for _, folder := range []string{"agent", "mutate"} {
		packages, err := filepath.Glob(filepath.Join(root, folder, "*", "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, packages)
		for _, file := range packages {
			name := filepath.Base(filepath.Dir(file))
			assert.True(t, name == "mutatetest" || regexp.MustCompile(`\b`+name+`\b`).MatchString(list), "docs/architecture.md lacks package %s/%s", folder, name)
		}
	}
}
