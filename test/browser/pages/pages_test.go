// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/browser/tab"
)

func TestMain(m *testing.M) { tab.Main(m) }

// site writes the site as "make site" does, once for all tests, and returns its folder.
var site = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "site")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "run", "./tools/site", "-out", dir)
	build.Dir = filepath.Join("..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// serve serves the site, and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	dir, err := site()
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/docs/", http.StripPrefix("/docs", http.FileServer(http.Dir(dir))))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return server.URL + "/docs/"
}

func TestPagesOfMarkdownFilesObeyAccessibilityRules(t *testing.T) {
	address := serve(t)
	for _, page := range []string{"", "tutorials/worker-runs-once.html", "reference/annotations.html", "reference/compatibility.html", "evidence.html", "decisions/20261123-chart.html"} {
		for _, prefers := range []tab.Scheme{tab.Light, tab.Dark} {
			for _, width := range []int64{1280, 390} {
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
	for words, first := range map[string]string{
		"kind": "how-to/laptop", "stuck": "troubleshoot/blocked-slot", "fencing token": "how-to/fencing",
	} {
		p.Script(`const s = document.getElementById("words"); s.value = ""; s.dispatchEvent(new Event("input"))`)
		p.Press(words)
		p.Await(`document.querySelectorAll("#results a").length > 0`)
		assert.Contains(t, tab.Value[string](p, `document.querySelector("#results a").href`), "/docs/"+first+".html", words)
	}
	p.Script(`const s = document.getElementById("words"); s.value = ""; s.dispatchEvent(new Event("input"))`)
	p.Press("a nightly job never overlaps")
	p.Await(`document.querySelectorAll("#results a").length > 0`)
	p.Press(kb.Tab)
	assert.Regexp(t, `/docs/how-to/nightly-job\.html#a-nightly-job-never-overlaps$`, tab.Value[string](p, "document.activeElement.href"))
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
	dir, err := site()
	require.NoError(t, err)
	p := tab.Open(t, "file://"+filepath.Join(dir, "decisions", "20261123-chart.html"), 320, tab.Dark)
	assert.NotEqual(t, "rgb(0, 0, 0)", tab.Value[string](p, "getComputedStyle(document.body).color"), "the style is in force")
	p.Press("/")
	p.Press("semaphore")
	p.Await(`document.querySelectorAll("#results a").length > 3`)
}

func TestCopyButtonCopiesCommandsWithoutTheirOutput(t *testing.T) {
	p := tab.Open(t, serve(t)+"tutorials/worker-runs-once.html", 1280, tab.Light)
	p.Script(`navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve() }`)
	copies := func(language string) string {
		block := fmt.Sprintf(`document.querySelector(".code:has(.language-%s)")`, language)
		p.Script(block + `.querySelector(".copy").click()`)
		p.Await(block + `.querySelector(".copy").textContent === "Copied"`)
		return tab.Value[string](p, "copied")
	}
	assert.Regexp(t, `^# worker.yaml\napiVersion: apps/v1\n(?s:.*)[^\n]$`, copies("yaml"))
	assert.Regexp(t, `^(kubectl [^\n]+\n)*kubectl [^\n]+$`, copies("console"))
}

func TestMenusAreColumnsOnWideScreensAndPopoversOnNarrowOnes(t *testing.T) {
	const page = "tutorials/worker-runs-once.html"
	const shown = `document.getElementById("%s").checkVisibility()`
	wide := tab.Open(t, serve(t)+page, 1280, tab.Light)
	narrow := tab.Open(t, serve(t)+page, 390, tab.Light)
	for _, menu := range []string{"pages", "contents"} {
		visible := fmt.Sprintf(shown, menu)
		assert.True(t, tab.Value[bool](wide, visible), menu)
		assert.False(t, tab.Value[bool](narrow, visible), menu)
		narrow.Script(fmt.Sprintf(`document.querySelector("[popovertarget=%s]").click()`, menu))
		narrow.Await(visible)
		assert.Empty(t, narrow.Violations())
		assert.True(t, tab.Value[bool](narrow, fmt.Sprintf(`(() => {
			const button = document.querySelector("[popovertarget=%s]"), at = button.getBoundingClientRect();
			return document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2) === button;
		})()`, menu)), "the menu %s leaves its button free", menu)
		narrow.Press(kb.Escape)
		narrow.Await("!" + visible)
	}
	narrow.Script(`document.querySelector("[popovertarget=contents]").click(); document.querySelector("#contents a").click()`)
	narrow.Await("!" + fmt.Sprintf(shown, "contents"))
}

// A column behind the edge of a table is easily missed: that of Troubleshoot has the cures.
func TestNoTableOfProseIsCutOff(t *testing.T) {
	address := serve(t)
	for _, page := range []string{"troubleshoot.html", "guarantees.html", "reference/plugin.html", "operate/kustomize.html"} {
		p := tab.Open(t, address+page, 1280, tab.Light)
		assert.Positive(t, tab.Value[int](p, `document.querySelectorAll(".stack").length`), page)
		assert.Equal(t, 0, tab.Value[int](p, `[...document.querySelectorAll(".stack")].filter((e) => e.scrollWidth > e.clientWidth).length`), page)
	}
}

// 320 pixels are what a screen of 1,280 shows at a zoom of 400 percent, which WCAG asks for.
func TestNoPageIsWiderThanANarrowScreen(t *testing.T) {
	dir, err := site()
	require.NoError(t, err)
	address := serve(t)
	p := tab.Open(t, address, 320, tab.Light)
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, _ fs.DirEntry, err error) error {
		if filepath.Ext(name) == ".html" {
			p.Do(chromedp.Navigate(address + name))
			assert.LessOrEqual(t, tab.Value[int](p, "document.scrollingElement.scrollWidth"), 320, name)
			assert.Equal(t, 0, tab.Value[int](p, `[...document.querySelectorAll(".stack")].filter((e) => e.scrollWidth > e.clientWidth).length`), name)
		}
		return err
	}))
}

func TestTableOfProseBecomesBlocksOnANarrowScreen(t *testing.T) {
	p := tab.Open(t, serve(t)+"reference/annotations.html", 390, tab.Light)
	assert.Equal(t, "block", tab.Value[string](p, `getComputedStyle(document.querySelector(".stack td")).display`))
	assert.Equal(t, `"value"`, tab.Value[string](p, `getComputedStyle(document.querySelector(".stack td:nth-child(2)"), "::before").content`))
}
