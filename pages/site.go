// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"unicode/utf8"
)

// pictures are the file extensions of the images that a page can show.
var pictures = []string{".png", ".svg", ".jpg", ".webp"}

// site has all Markdown files while [Build] turns them into pages.
type site struct {
	repository fs.FS
	pages      []*page
	bySource   map[string]*page
	// pictures are the images that pages can show, by their paths in the repository.
	pictures map[string][]byte
}

// read parses all Markdown files, in the order of their paths, and keeps the images that pages can
// show.
func (s *site) read(documents fs.FS) error {
	return fs.WalkDir(documents, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		picture := slices.Contains(pictures, path.Ext(name))
		if !picture && path.Ext(name) != ".md" {
			return nil
		}
		text, err := fs.ReadFile(documents, name)
		switch {
		case err != nil:
			return err
		case picture:
			s.pictures[name] = text
			return nil
		case len(text) > maxSize || !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0:
			return mistake{name, 1, "the document is not UTF-8, or larger than 1 MiB"}
		}
		p := parse(name, text)
		s.pages, s.bySource[name] = append(s.pages, p), p
		return nil
	})
}

// exists reports whether the repository has a file or folder. Without a repository every file
// counts as existing.
func (s *site) exists(name string) bool {
	if s.repository == nil {
		return true
	}
	_, err := fs.Stat(s.repository, name)
	return err == nil
}
