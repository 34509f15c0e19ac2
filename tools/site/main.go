// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command site writes the documentation as static pages. The command also checks the links to files
// of the repository. The command replaces the folder of an earlier site, and no other folder.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle"
	"github.com/metaparticle-io/metaparticle/pages"
)

func main() {
	out := flag.String("out", "out/site", "the folder of the pages, which is replaced")
	flag.Parse()
	if err := run(".", *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run writes the pages of the repository whose files are in the folder "root".
func run(root, out string) error {
	files, err := pages.Build(metaparticle.Documents, os.DirFS(root), colours)
	if err != nil {
		return err
	}
	if err := remove(out); err != nil {
		return err
	}
	for name, text := range files {
		file := filepath.Join(out, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("%d files: open %s\n", len(files), filepath.Join(out, "index.html"))
	return nil
}

// remove removes an earlier site. If the folder contains files, but not the search index of a site,
// remove returns an error and removes nothing.
func remove(out string) error {
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(out, "search-index.js")); err != nil {
		return fmt.Errorf("%s is no folder of an earlier site: %w", out, err)
	}
	return os.RemoveAll(out)
}
