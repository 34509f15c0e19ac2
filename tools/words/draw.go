// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sample has the number of comments, of test names and of sentences that the function "draw" prints.
var sample = map[string]int{"comment": 60, "test": 40, "sentence": 30}

// preceding and following are the numbers of lines that the function "draw" prints above and below
// a text, as an editor would. A sentence comes only with the lines above. If a sentence begins
// within a line, that line is the last line above.
const preceding, following = 5, 8

// drawable is a text of the repository, and the lines beside the text.
type drawable struct {
	finding
	above, below []string
}

// draw prints a random sample of the repository's texts, each in its place. Equal seeds and
// sources give equal samples. A reader marks each text that needs a second read.
func draw(w io.Writer, root, seed string) error {
	number, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return fmt.Errorf("seed of the draw: %w", err)
	}
	all := map[string][]drawable{}
	err = walk(root, func(file string, text []byte) error {
		kinds, err := texts(file, text)
		for kind, found := range kinds {
			for i := range found {
				found[i].file = file
			}
			all[kind] = append(all[kind], found...)
		}
		return err
	})
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(number, 0)) //nolint:gosec // The draw is to be repeated.
	for _, kind := range []string{"comment", "test", "sentence"} {
		random.Shuffle(len(all[kind]), func(i, j int) { all[kind][i], all[kind][j] = all[kind][j], all[kind][i] })
		for i, f := range all[kind][:min(sample[kind], len(all[kind]))] {
			fmt.Fprintf(w, "%s %d  %s:%d\n", kind, i+1, f.file, f.line)
			beside(w, f.above)
			fmt.Fprintln(w, f.text)
			beside(w, f.below)
			fmt.Fprintln(w)
		}
	}
	return nil
}

// beside prints lines above or below a text.
func beside(w io.Writer, lines []string) {
	for _, line := range lines {
		fmt.Fprintf(w, "    | %s\n", line)
	}
}

// texts returns the comments and the names of tests of a Go file, or the sentences of a Markdown
// file. Sentences of at most three words, and the sentences of the changelog, are left out.
func texts(file string, text []byte) (map[string][]drawable, error) {
	lines := strings.Split(string(text), "\n")
	all := map[string][]drawable{}
	if filepath.Ext(file) == ".md" {
		for _, s := range prose(text) {
			if s.words() > 3 && !strings.HasPrefix(file, "CHANGELOG") {
				before := lines[max(s.line-1-preceding, 0) : s.line-1]
				words := strings.Fields(lines[s.line-1])
				if !strings.HasPrefix(s.text, strings.Join(words[:min(3, len(words))], " ")) {
					before = append(slices.Clip(before), lines[s.line-1])
				}
				all["sentence"] = append(all["sentence"], drawable{finding: finding{line: s.line, text: s.text}, above: before})
			}
		}
		return all, nil
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, "", text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, group := range parsed.Comments {
		if text := strings.TrimSpace(group.Text()); text != "" && !directive.MatchString(group.List[0].Text) {
			end := set.Position(group.End()).Line
			line := set.Position(group.Pos()).Line
			above, below := lines[max(line-1-preceding, 0):line-1], lines[end:min(end+following, len(lines))]
			if code := strings.TrimSpace(lines[end-1]); !strings.HasPrefix(code, "//") && !strings.HasSuffix(code, "*/") {
				above, below = lines[max(end-1-preceding, 0):end], nil
			}
			all["comment"] = append(all["comment"], drawable{finding{line: line, text: text}, above, below})
		}
	}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			if _, isTest := testName(f); isTest {
				at := finding{line: set.Position(f.Pos()).Line, text: f.Name.Name}
				all["test"] = append(all["test"], drawable{finding: at})
			}
		}
	}
	return all, nil
}
