// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/pages"
	"github.com/metaparticle-io/metaparticle/test/browser/tab"
)

func TestMain(m *testing.M) { tab.Main(m) }

// serve serves the pages, and returns their address.
func serve(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/docs/", http.StripPrefix("/docs", pages.Handler()))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return server.URL + "/docs/"
}

func TestPagesOfMarkdownFilesObeyAccessibilityRules(t *testing.T) {
	address := serve(t)
	for _, page := range []string{"", "tutorials/worker-runs-once.html", "guarantees.html", "annotations.html", "compatibility.html", "api.html", "decisions/20261123-chart.html"} {
		for _, prefers := range []tab.Scheme{tab.Light, tab.Dark} {
			for _, width := range []int64{1280, 320} {
				t.Run(fmt.Sprint(page, " ", prefers, " ", width), func(t *testing.T) {
					p := tab.Open(t, address+page, width, prefers)
					tab.Value[bool](p, `document.querySelectorAll("details").forEach((d) => d.open = true); true`)
					assert.Empty(t, p.Violations())
					assert.LessOrEqual(t, tab.Value[int64](p, "document.scrollingElement.scrollWidth"), width, "nothing is cut off")
				})
			}
		}
	}
}

func TestAccessibilityCheckerFindsAButtonWithoutName(t *testing.T) {
	p := tab.Open(t, serve(t), 1280, tab.Light)
	tab.Value[bool](p, `document.querySelector("main").append(document.createElement("button")); true`)
	found := p.Violations()
	require.Len(t, found, 1)
	assert.Contains(t, found[0], "button-name")
}

func TestKeyboardUserCanSearchAndReachResults(t *testing.T) {
	p := tab.Open(t, serve(t)+"tutorials/nightly-job.html", 1280, tab.Light)
	p.Press("/")
	p.Await(`document.activeElement.id === "words"`)
	p.Press("fencing TOKEN")
	p.Await(`document.querySelectorAll("#results a").length > 3`)
	assert.Regexp(t, `^\d+ results`, tab.Value[string](p, `document.getElementById("count").textContent`))
	p.Press("x")
	p.Await(`document.querySelectorAll("#results a").length === 0`)
	assert.Equal(t, "0 results", tab.Value[string](p, `document.getElementById("count").textContent`))
	p.Press(kb.Escape)
	p.Await(`document.getElementById("count").textContent === ""`)
	p.Press("a nightly job never overlaps")
	p.Await(`document.querySelectorAll("#results a").length > 0`)
	p.Press(kb.Tab)
	assert.Regexp(t, `/docs/library\.html#a-nightly-job-never-overlaps$`, tab.Value[string](p, "document.activeElement.href"))
}

func TestSearchResultsObeyAccessibilityRules(t *testing.T) {
	for prefers, width := range map[tab.Scheme]int64{tab.Light: 1280, tab.Dark: 320} {
		p := tab.Open(t, serve(t), width, prefers)
		p.Press("/")
		p.Press("metaparticle")
		p.Await(`document.querySelectorAll("#results a").length === 20`)
		assert.Empty(t, p.Violations())
		assert.LessOrEqual(t, tab.Value[int64](p, "document.scrollingElement.scrollWidth"), width, "nothing is cut off")
	}
}

func TestFirstTabKeyReachesTheSkipLink(t *testing.T) {
	p := tab.Open(t, serve(t), 1280, tab.Light)
	p.Press(kb.Tab)
	assert.Equal(t, "Skip to the content", tab.Value[string](p, "document.activeElement.textContent"))
	assert.GreaterOrEqual(t, tab.Value[float64](p, "document.activeElement.getBoundingClientRect().top"), 0.0, "the focused link is visible")
	p.Press(kb.Enter)
	p.Await(`document.activeElement.id === "content"`)
}

func TestPagesFromTheDiskCanBeSearched(t *testing.T) {
	files, err := pages.Files()
	require.NoError(t, err)
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, text, 0o644))
	}
	p := tab.Open(t, "file://"+filepath.Join(dir, "decisions", "20261123-chart.html"), 320, tab.Dark)
	assert.NotEqual(t, "rgb(0, 0, 0)", tab.Value[string](p, "getComputedStyle(document.body).color"), "the style is in force")
	p.Press("/")
	p.Press("semaphore")
	p.Await(`document.querySelectorAll("#results a").length > 3`)
}
