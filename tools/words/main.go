// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command words measures the language of comments, Markdown files and test names.
//
// Without arguments the command prints how often each folder breaks each rule. With folders as
// arguments the command prints the sentences and names that break a rule:
//
//	go run ./tools/words agent/gate docs
//
// With "draw" and a seed the command prints texts for a fresh reader, drawn at random:
//
//	go run ./tools/words draw 20261123
//
// The rules (rules.go) are those of CONTRIBUTING.md that a program can check. The command finds
// only some of the bad texts: a text that breaks no rule may still be hard to read. Of a
// generated Markdown file, the command measures only the tables.
//
// The command also prints each word in the name of an exported type, if neither of two lists has
// the word. The first list, the table of docs/architecture.md, explains words. The second list, the
// file plain.txt, has the words that need no explanation.
//
// The table limits.txt has an upper limit for each folder.
// With -lower the command lowers the limits to the measured figures.
package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/tools/limit"
)

func main() { limit.Command("words", run) }

func run(w io.Writer, root string, lower bool, folders []string) error {
	if len(folders) == 2 && folders[0] == "draw" {
		return draw(w, root, folders[1])
	}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(root, folder)); err != nil {
			return fmt.Errorf("%s is no folder of this repository: write a path from its root, as agent/gate", folder)
		}
	}
	findings, err := measure(root)
	if err != nil {
		return err
	}
	counts := count(findings)
	if lower {
		file := filepath.Join(root, "tools/words/limits.txt")
		limits, err := limit.Read(file)
		if err != nil {
			return err
		}
		limits.Lower(counts, limit.Sum)
		return limits.Write(file)
	}
	if len(folders) > 0 {
		printSentences(w, findings, folders)
		return nil
	}
	printCounts(w, counts)
	words, err := readVocabulary(root)
	words.print(w)
	return err
}

// count returns the number of findings of each rule, by folder.
func count(findings []finding) limit.Counts {
	counts := limit.Counts{}
	for _, f := range findings {
		if counts[f.folder()] == nil {
			counts[f.folder()] = make([]int, len(rules))
		}
		counts[f.folder()][slices.Index(rules, f.rule)]++
	}
	return counts
}

func printCounts(w io.Writer, counts limit.Counts) {
	sums := make([]int, len(rules))
	fmt.Fprintf(w, "%-32s", "folder")
	for _, rule := range rules {
		fmt.Fprintf(w, " %8s", rule)
	}
	for _, folder := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "\n%-32s", folder)
		for i, n := range counts[folder] {
			fmt.Fprintf(w, " %8d", n)
			sums[i] += n
		}
	}
	fmt.Fprintf(w, "\n%-32s", "all")
	for _, n := range sums {
		fmt.Fprintf(w, " %8d", n)
	}
	fmt.Fprint(w, "\n\nThe sentences of a folder: make words PKG=agent/gate\n")
}

// printSentences prints the findings in the given files and folders, and in the subfolders.
func printSentences(w io.Writer, findings []finding, folders []string) {
	for _, f := range findings {
		if slices.ContainsFunc(folders, func(folder string) bool {
			folder = filepath.Clean(folder)
			return f.file == folder || f.folder() == folder || strings.HasPrefix(f.file, folder+"/")
		}) {
			fmt.Fprintf(w, "%s:%d: %s: %s\n", f.file, f.line, f.rule, f.text)
		}
	}
}
