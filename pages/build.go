// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/metaparticle-io/metaparticle"
)

var (
	//go:embed style.css
	style []byte
	//go:embed search.js
	script []byte
)

// Files returns the files of the site by their paths. The site has a page for each embedded
// Markdown file.
var Files = sync.OnceValues(func() (map[string][]byte, error) { return Build(metaparticle.Documents, nil) })

// Build renders the Markdown files in "documents", and returns the files of the site by their
// paths. Each path in "documents" is also a path in the repository. Build checks links to other
// files of the repository, unless the argument "repository" is nil.
func Build(documents, repository fs.FS) (map[string][]byte, error) {
	s := &site{repository: repository, bySource: map[string]*page{}, pictures: map[string][]byte{}}
	if err := s.read(documents); err != nil {
		return nil, err
	}
	var all []error
	for _, p := range s.pages {
		all = append(all, p.check(s)...)
	}
	if err := errors.Join(all...); err != nil {
		return nil, err
	}
	files := map[string][]byte{"style.css": style, "search.js": script}
	for name, picture := range s.pictures {
		files[target(name)] = picture
	}
	groups := arrange(s.pages)
	for _, p := range s.pages {
		if files[p.path] != nil {
			return nil, fmt.Errorf("%s: another document has the page %s, too", p.source, p.path)
		}
		files[p.path] = s.render(p, groups)
	}
	index, err := index(groups)
	files["search-index.js"] = index
	return files, err
}

// found is a section in the index of the search. The JSON names are short, because the index
// repeats these names for each section.
type found struct {
	Page    string `json:"p"`
	Title   string `json:"t"`
	Anchor  string `json:"a"`
	Heading string `json:"h"`
	Text    string `json:"x"`
}

// index returns a script with the index of the search. A browser refuses to fetch a JSON file
// for a page that it has opened from the disk, so the JSON is in a script.
func index(groups [][]*page) ([]byte, error) {
	var all []found
	for _, p := range slices.Concat(groups...) {
		for _, s := range p.sections {
			all = append(all, found{p.path, p.title, s.anchor, s.title, strings.Join(strings.Fields(s.text.String()), " ")})
		}
	}
	text, err := json.Marshal(all)
	return slices.Concat([]byte("var searchIndex = "), text, []byte(";\n")), err
}
