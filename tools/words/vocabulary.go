// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// product lists the folders of the product. The names in the code of these folders are compared with
// the vocabulary.
var product = []string{"agent", "api", "cmd", "console", "enroll", "mutate"}

// vocabulary has the words in the product's names, and the lists of explained and plain
// words.
type vocabulary struct {
	listed map[string]bool // in docs/architecture.md
	plain  map[string]bool // in plain.txt
	// used has all words of all names. The field "exported" has the words of exported types,
	// and for each word the types.
	used     map[string]bool
	exported map[string][]string
}

func readVocabulary(root string) (vocabulary, error) {
	v := vocabulary{used: map[string]bool{}, exported: map[string][]string{}}
	architecture, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		return v, err
	}
	plain, err := os.ReadFile(filepath.Join(root, "tools/words/plain.txt"))
	if err != nil {
		return v, err
	}
	v.listed, v.plain = listedWords(string(architecture)), plainWords(string(plain))
	for _, folder := range product {
		if err := v.readNames(root, folder); err != nil {
			return v, err
		}
	}
	return v, nil
}

// row matches the first cell of a table's row.
var row = regexp.MustCompile(`(?m)^\| ([^|]+?) \|`)

// listedWords returns the words in the first column of the table under the heading "Words".
func listedWords(architecture string) map[string]bool {
	_, table, _ := strings.Cut(architecture, "\n## Words\n")
	table, _, _ = strings.Cut(table, "\n## ")
	words := map[string]bool{}
	for _, match := range row.FindAllStringSubmatch(table, -1)[1:] { // the first row is the table's head
		for word := range strings.FieldsFuncSeq(match[1], func(r rune) bool { return strings.ContainsRune(",; ", r) }) {
			words[singular(strings.ReplaceAll(word, "-", ""))] = true
		}
	}
	return words
}

// plainWords returns the words of plain.txt. Each line has a reason, a colon, and words. The reason
// tells why these words need no row in docs/architecture.md.
func plainWords(text string) map[string]bool {
	words := map[string]bool{}
	for l := range strings.Lines(text) {
		if _, list, ok := strings.Cut(l, ":"); ok && !strings.HasPrefix(l, "#") {
			for word := range strings.FieldsSeq(list) {
				words[word] = true
			}
		}
	}
	return words
}

// readNames reads the code below a folder, except for test files. The function adds the words of
// all names to v.used, and the words in the names of exported types also to v.exported.
func (v vocabulary) readNames(root, folder string) error {
	return filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		v.used[singular(file.Name.Name)] = true
		ast.Inspect(file, func(n ast.Node) bool {
			if name, ok := n.(*ast.Ident); ok {
				for _, word := range nameWords(name.Name) {
					v.used[singular(word)] = true
				}
			}
			if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				for _, word := range nameWords(spec.Name.Name) {
					its := singular(word)
					v.exported[its] = append(v.exported[its], file.Name.Name+"."+spec.Name.Name)
				}
			}
			return true
		})
		return nil
	})
}

// singular returns a word in lower case, without the s of the plural.
func singular(word string) string {
	word = strings.ToLower(word)
	if plural, ok := strings.CutSuffix(word, "sses"); ok {
		return plural + "ss"
	}
	if strings.HasSuffix(word, "ss") || strings.HasSuffix(word, "us") || len(word) < 4 {
		return word
	}
	return strings.TrimSuffix(word, "s")
}

// unlisted returns the words in the names of exported types, without the words of either list.
func (v vocabulary) unlisted() []string {
	var found []string
	for _, word := range slices.Sorted(maps.Keys(v.exported)) {
		if !v.listed[word] && !v.plain[word] {
			found = append(found, fmt.Sprintf("%s (%s)", word, strings.Join(v.exported[word], ", ")))
		}
	}
	return found
}

// unused returns the words of docs/architecture.md that no name of the product has.
func (v vocabulary) unused() []string {
	var found []string
	for _, word := range slices.Sorted(maps.Keys(v.listed)) {
		if !v.used[word] {
			found = append(found, word)
		}
	}
	return found
}

// idle returns the words of plain.txt that no exported type has in its name. The result also
// contains the words of plain.txt that docs/architecture.md lists.
func (v vocabulary) idle() []string {
	var found []string
	for _, word := range slices.Sorted(maps.Keys(v.plain)) {
		if v.exported[word] == nil || v.listed[word] {
			found = append(found, word)
		}
	}
	return found
}

// print prints the words that the lists lack, and those that the lists do not need.
func (v vocabulary) print(w io.Writer) {
	for _, part := range []struct {
		title string
		words []string
	}{
		{"of exported types, in neither list", v.unlisted()},
		{"in docs/architecture.md, in no name of the code", v.unused()},
		{"in tools/words/plain.txt without need", v.idle()},
	} {
		if len(part.words) > 0 {
			fmt.Fprintf(w, "Words %s:\n  %s\n", part.title, strings.Join(part.words, "\n  "))
		}
	}
}
