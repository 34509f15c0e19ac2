// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command site writes the documentation as static pages. The links to all files of the repository are
// checked. The command removes each file of an earlier site.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle"
	"github.com/metaparticle-io/metaparticle/pages"
)

func main() {
	out := flag.String("out", "out/site", "the folder of the pages, which is replaced")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run writes the pages of the repository in the working directory.
func run(out string) error {
	files, err := pages.Build(metaparticle.Documents, os.DirFS("."))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
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
