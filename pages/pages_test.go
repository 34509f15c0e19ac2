// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle"
)

var update = flag.Bool("update", false, "rewrite golden files")

// archive returns the files of an archive as a file system.
func archive(files []txtar.File) fstest.MapFS {
	documents := fstest.MapFS{}
	for _, f := range files {
		documents[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	return documents
}

// bodyOf returns the HTML inside the element article of a page.
func bodyOf(t *testing.T, page []byte) string {
	t.Helper()
	_, rest, found := strings.Cut(string(page), "<article>\n")
	require.True(t, found)
	body, _, found := strings.Cut(rest, "</article>")
	require.True(t, found)
	return body
}

func TestPageBuiltFromSampleEqualsItsGoldenFile(t *testing.T) {
	const file = "testdata/sample.txtar"
	sample, err := txtar.ParseFile(file)
	require.NoError(t, err)
	sources := slices.DeleteFunc(slices.Clone(sample.Files), func(f txtar.File) bool { return f.Name == "sample.html" })
	files, err := Build(archive(sources), nil, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{
		"decisions/a.html", "icon.svg", "images/a.png", "index.html", "page.js", "readme.html", "sample.html", "search-index.js", "search.js", "style.css",
	}, slices.Sorted(maps.Keys(files)))
	sample.Files = append(sources, txtar.File{Name: "sample.html", Data: []byte(bodyOf(t, files["sample.html"]))})
	if *update {
		require.NoError(t, os.WriteFile(file, txtar.Format(sample), 0o644))
	}
	golden, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(golden), string(txtar.Format(sample)), "run make golden")
}

func TestMarkdownMistakesAreReportedWithFileAndLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a block of HTML":          {"# A\n\ntext\n\n<div>x</div>\n", "docs/a.md:5: HTML is refused: \"<div>x</div>\""},
		"HTML in a line":           {"# A\n\none\ntwo <b>x</b>\n", "docs/a.md:4: HTML is refused: \"<b>\""},
		"HTML after a comment":     {"<!-- a --><script>\n</script>\n", "docs/a.md:1: HTML is refused"},
		"HTML after the same code": {"`<i>`\n\n```\n<i>\n```\n\n- x\n- <i>\n", "docs/a.md:8: HTML is refused: \"<i>\""},
		"a missing page":           {"# A\n\n[x](b.md)\n", "docs/a.md:3: the link to \"b.md\" names no file of this repository"},
		"a missing heading":        {"# A\n\n[x](#b)\n", "docs/a.md:3: the link to \"#b\" names no heading of docs/a.md"},
		"another page's heading":   {"[x](../README.md#b)\n", "docs/a.md:1: the link to \"../README.md#b\" names no heading of README.md"},
		"a second equal link":      {"# A\n\n[x](#a)\n\n[x](#b) [x](#a)\n\n[y](#b)\n", "docs/a.md:5: the link to \"#b\" names no heading of docs/a.md\ndocs/a.md:7: "},
		"a path out of the folder": {"[x](../../etc/passwd)\n", "docs/a.md:1: the link to \"../../etc/passwd\" names no file of this repository"},
		"a script as an address":   {"[x](javascript:alert(1))\n", "docs/a.md:1: the link to \"javascript:alert(1)\" is neither of https, http or mailto"},
		"data as an address":       {"[x](data:text/html,x)\n", "is neither of https, http or mailto"},
		"an address of this host":  {"[x](//example.com/)\n", "is neither of https, http or mailto"},
		"an absolute path":         {"[x](/etc)\n", "is neither of https, http or mailto"},
		"an empty address":         {"[x]()\n", "docs/a.md:1: the link to \"\" is no address"},
		"an image of a script":     {"![x](javascript:x)\n", "docs/a.md:1: the image \"javascript:x\" is neither"},
		"an image without a text":  {"![](a.png)\n", "docs/a.md:1: the image \"a.png\" has no text that describes it"},
		"no UTF-8":                 {"\xff", "docs/a.md:1: the document is not UTF-8"},
		"a huge document":          {strings.Repeat("a\n", maxSize), "larger than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			documents := fstest.MapFS{"docs/a.md": {Data: []byte(c.text)}, "README.md": {Data: []byte("# Readme\n")}}
			_, err := Build(documents, fstest.MapFS{"docs/a.png": {}}, nil)
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.want)
		})
	}
}

func TestTwoMarkdownFilesForOnePageAreRefused(t *testing.T) {
	_, err := Build(fstest.MapFS{"docs/a.md": {}, "a.md": {}}, nil, nil)
	assert.ErrorContains(t, err, "another document has the page a.html, too")
}

func TestHeadingsHaveGitHubsAnchors(t *testing.T) {
	names := anchors{}
	for _, c := range []struct{ heading, want string }{
		{"Where do I add …", "where-do-i-add-"},
		{"POST /v1/KIND/NAME/holds bids", "post-v1kindnameholds-bids"},
		{"metaparticle.io/on-busy: skip", "metaparticleioon-busy-skip"},
		{"Übung 1_2", "übung-1_2"},
		{"A – B", "a--b"},
		{"Guaranteed", "guaranteed"},
		{"Guaranteed", "guaranteed-1"},
		{"guaranteed", "guaranteed-2"},
		{"Guaranteed 1", "guaranteed-1-1"},
	} {
		assert.Equal(t, c.want, names.add(c.heading), c.heading)
	}
}

// The files about the project itself, such as SECURITY.md, have no page: their readers are in the repository.
func TestEachDocumentOfTheRepositoryHasAPage(t *testing.T) {
	files, err := Build(metaparticle.Documents, os.DirFS(".."), nil)
	require.NoError(t, err)
	for _, pattern := range []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join("..", pattern))
		require.NoError(t, err)
		require.NotEmpty(t, found)
		for _, file := range found {
			source, err := filepath.Rel("..", file)
			require.NoError(t, err)
			assert.Contains(t, files, target(source), "name the folder in documents.go")
		}
	}
}

func TestEachNavigationLinkNamesAnExistingMarkdownFile(t *testing.T) {
	for _, g := range order {
		for _, source := range g.first {
			_, err := fs.Stat(metaparticle.Documents, source)
			assert.NoError(t, err)
		}
	}
}

func TestEqualMarkdownFilesMakeEqualPages(t *testing.T) {
	once, err := Build(metaparticle.Documents, nil, nil)
	require.NoError(t, err)
	checked, err := Build(metaparticle.Documents, os.DirFS(".."), nil)
	require.NoError(t, err)
	served, err := Files()
	require.NoError(t, err)
	assert.Equal(t, once, checked)
	assert.Equal(t, once, served)
}

// BenchmarkBuildOfAllPages measures the work that the first request to a process causes: to render
// all pages.
func BenchmarkBuildOfAllPages(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, err := Build(metaparticle.Documents, nil, nil)
		require.NoError(b, err)
	}
}

func TestMenuHasEachFolderAndNamesPagesApartOnce(t *testing.T) {
	files, err := Build(fstest.MapFS{
		"docs/index.md": {Data: []byte("# Hello\n\n[begin](tutorials) [check](decisions)\n")}, "README.md": {Data: []byte("# Readme\n")},
		"docs/tutorials/z.md": {Data: []byte("# An early title\n")}, "docs/tutorials/b.md": {Data: []byte("# Later\n")},
		"docs/tutorials/nightly-job.md": {Data: []byte("# Named first\n")}, "docs/security.md": {Data: []byte("# Security\n")},
		"docs/security/a.md": {Data: []byte("# Callers\n")}, "docs/evidence/README.md": {Data: []byte("# Evidence\n")},
		"docs/evidence/b.md": {Data: []byte("# Benchmarks\n")}, "docs/decisions/a.md": {Data: []byte("# Why\n")},
	}, nil, nil)
	require.NoError(t, err)
	titles := func(page string) (all []string) {
		_, menu, _ := strings.Cut(string(files[page]), `aria-label="Pages">`)
		menu, _, _ = strings.Cut(menu, "</nav>")
		for _, match := range regexp.MustCompile(`(?:<summary>|<a [^>]*>)([^<]*)`).FindAllStringSubmatch(menu, -1) {
			all = append(all, match[1])
		}
		return all
	}
	want := []string{"Start", "Overview", "Tutorials", "Named first", "An early title", "Later", "Security", "Security", "Callers", "Evidence and decisions"}
	assert.Equal(t, want, titles("index.html"))
	assert.Equal(t, want, titles("decisions/a.html"))
	assert.Contains(t, string(files["index.html"]), `<a href="tutorials/nightly-job.html">begin</a> <a href="decisions/a.html">check</a>`)
	assert.Contains(t, string(files["evidence.html"]), "<h2 id=\"decisions\">Decisions</h2>\n<ul>\n<li><a href=\"decisions/a.html\">Why</a></li>\n</ul>")
	assert.NotContains(t, string(files["security.html"]), "Decisions</h2>")
	assert.Contains(t, string(files["search-index.js"]), `"t":"Why","a":"why","h":"Why","x":"","o":true`)
}
