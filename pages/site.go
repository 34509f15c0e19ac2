// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pages renders the Markdown files of the repository as HTML pages, with one navigation and
// a search. [Build] makes the pages, and [Handler] serves the same bytes.
//
// Guarantee: the text of a Markdown file becomes only listed elements and attributes
// (hostile_test.go has the list). HTML in a Markdown file is an error, except for comments, which
// the pages leave out. A link has the scheme https, http or mailto, or leads to a page, or to a
// file of the repository. Each link to a page leads to a page that exists, and to a heading that
// exists. An error names the file and the line. Equal Markdown files make equal bytes.
//
// A browser that opens a page sends no request to another host. The policy in each page
// ([Policy]) forbids all requests but those for the page's own style, script and images.
//
// Not guaranteed: that links to other hosts work. Each heading has the anchor that GitHub gives to
// the heading, unless the heading has emoji or HTML. The parser knows no source positions, so the
// package finds the line of an error by a search for the offending text. The package has no clock.
//
// Rejected: a static site generator, which needs a theme and further programs; rendered pages in
// the repository.
package pages

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/metaparticle-io/metaparticle"
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
	colours  Colours
	groups   []placed
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
		if name == "README.md" {
			p.title = "Overview" // the site's own name says nothing in the menu
		}
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

var (
	//go:embed style.css
	style []byte
	//go:embed search.js
	script []byte
	//go:embed page.js
	pageScript []byte
	//go:embed icon.svg
	icon []byte
)

// Files returns the files of the site by their paths. The site has a page for each embedded
// Markdown file.
var Files = sync.OnceValues(func() (map[string][]byte, error) { return Build(metaparticle.Documents, nil, nil) })

// Build renders the Markdown files in "documents", and returns the files of the site by their
// paths. Each path in "documents" is also a path in the repository. Build checks links to other
// files of the repository, unless the argument "repository" is nil. Without colours, code has one colour.
func Build(documents, repository fs.FS, colours Colours) (map[string][]byte, error) {
	s := &site{repository: repository, colours: colours, bySource: map[string]*page{}, pictures: map[string][]byte{}}
	if err := s.read(documents); err != nil {
		return nil, err
	}
	s.groups = arrange(s.pages)
	var all []error
	for _, p := range s.pages {
		all = append(all, p.check(s)...)
	}
	if err := errors.Join(all...); err != nil {
		return nil, err
	}
	files := map[string][]byte{"style.css": style, "search.js": script, "page.js": pageScript, "icon.svg": icon}
	for name, picture := range s.pictures {
		files[target(name)] = picture
	}
	for _, p := range s.pages {
		if files[p.path] != nil {
			return nil, fmt.Errorf("%s: another document has the page %s, too", p.source, p.path)
		}
		files[p.path] = s.render(p)
	}
	index, err := s.index()
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
	// Apart reports that the page is not in the menu.
	Apart bool `json:"o,omitempty"`
}

// index returns a script with the index of the search. A browser refuses to fetch a JSON file
// for a page that it has opened from the disk, so the JSON is in a script.
func (s *site) index() ([]byte, error) {
	groups := s.groups
	if first := s.bySource[start]; first != nil {
		groups = slices.Insert(slices.Clone(groups), 0, placed{pages: []*page{first}})
	}
	var all []found
	for _, g := range groups {
		for _, p := range g.pages {
			for _, part := range p.sections {
				text := strings.Join(strings.Fields(part.text.String()), " ")
				all = append(all, found{p.path, p.title, part.anchor, part.title, text, g.apart})
			}
		}
	}
	text, err := json.Marshal(all)
	return slices.Concat([]byte("var searchIndex = "), text, []byte(";\n")), err
}

// types are the media types of the site's files, by their extensions. The operating system's own
// table of types may lack one of them.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".webp": "image/webp",
}

// Handler serves the pages of the embedded Markdown files. All links are relative, so the pages can
// have any prefix: mux.Handle("/docs/", http.StripPrefix("/docs", pages.Handler())). The first
// request renders all pages.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files, err := Files()
		if err != nil {
			http.Error(w, "the documentation has a mistake", http.StatusInternalServerError)
			return
		}
		name := strings.TrimPrefix(r.URL.Path, "/")
		if name == "" {
			name = "index.html"
		}
		file, known := files[name]
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		case !known:
			http.NotFound(w, r)
			return
		}
		sum := sha256.Sum256(file)
		header := w.Header()
		header.Set("Content-Type", types[path.Ext(name)])
		header.Set("Content-Security-Policy", Policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-cache")
		header.Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	})
}
