// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// measure returns all findings of the repository, in the order of files and lines.
func measure(root string) ([]finding, error) {
	var all []finding
	err := walk(root, func(file string, text []byte) error {
		inspect := inspectSource
		if filepath.Ext(file) == ".md" {
			inspect = inspectDocument
		}
		found, err := inspect(text)
		for i := range found {
			found[i].file = file
		}
		all = append(all, found...)
		return err
	})
	return all, err
}

// walk calls f with each Go file and each Markdown file of the repository. Hidden folders and the
// folders testdata, out and node_modules are left out.
func walk(root string, f func(file string, text []byte) error) error {
	return filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if file != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "out" || entry.Name() == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if extension := filepath.Ext(file); extension != ".go" && extension != ".md" {
			return nil
		}
		text, err := os.ReadFile(file) //nolint:gosec // A file of the repository.
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		return f(relative, text)
	})
}

// inspectDocument judges the sentences of a Markdown file.
func inspectDocument(text []byte) ([]finding, error) { return inspectSentences(prose(text)), nil }

// prose returns the sentences of a Markdown file. Of a generated file, prose returns only the
// sentences of tables, because the other sentences are in comments of the code.
func prose(text []byte) []sentence {
	generated := bytes.HasPrefix(text, []byte("<!-- Generated"))
	var lines []line
	number := 0
	for l := range strings.Lines(string(text)) {
		number++
		if !generated || strings.HasPrefix(l, "|") {
			lines = append(lines, line{number, strings.TrimRight(l, "\n")})
		}
	}
	return sentences(lines)
}

// inspectSource judges the comments and the names of the tests of a Go file.
func inspectSource(text []byte) ([]finding, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "", text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, group := range file.Comments {
		found = append(found, inspectSentences(sentences(commentLines(set, group)))...)
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		at := finding{line: set.Position(f.Pos()).Line, text: f.Name.Name}
		if its, isTest := testName(f); isTest {
			if len(nameWords(its)) > mostNameWords {
				at.rule = name
				found = append(found, at)
			}
		} else if describesByNoun(f.Name.Name, f.Doc.Text()) {
			at.rule = noun
			found = append(found, at)
		}
	}
	return found, nil
}

func inspectSentences(all []sentence) []finding {
	var found []finding
	for _, s := range all {
		for _, rule := range judge(s) {
			found = append(found, finding{line: s.line, rule: rule, text: s.text})
		}
	}
	return found
}

// testName returns the name of a test without its prefix.
func testName(f *ast.FuncDecl) (string, bool) {
	for _, prefix := range []string{"Test", "Fuzz", "Benchmark"} {
		if its, ok := strings.CutPrefix(f.Name.Name, prefix); ok && f.Recv == nil && its != "" {
			return its, true
		}
	}
	return "", false
}

// directive matches comments that only tools read.
var directive = regexp.MustCompile(`^//(?:[a-z]+:|nolint| SPDX-| docs/compatibility\.md: |line )`)

// commentLines returns the lines of a comment, without the slashes.
func commentLines(set *token.FileSet, group *ast.CommentGroup) []line {
	var lines []line
	for _, c := range group.List {
		number := set.Position(c.Pos()).Line
		if text, isBlock := strings.CutPrefix(c.Text, "/*"); isBlock {
			for l := range strings.Lines(strings.TrimSuffix(text, "*/")) {
				lines = append(lines, line{number, strings.TrimSpace(l)})
				number++
			}
			continue
		}
		text := strings.TrimPrefix(strings.TrimPrefix(c.Text, "//"), " ")
		if directive.MatchString(c.Text) {
			text = ""
		}
		lines = append(lines, line{number, text})
	}
	return lines
}
