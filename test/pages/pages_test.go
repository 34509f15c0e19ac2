// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/pages"
)

// violations returns what axe-core finds.
const violations = `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
	.then((r) => r.violations.map((v) => v.id + ": " + v.help + " " + v.nodes.map((n) => n.html + " " + n.failureSummary).join(" | ")))`

func TestPagesBreakNoRuleOfAccessibility(t *testing.T) {
	axe, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	require.NoError(t, err, "npm ci installs axe-core")
	address := serve(t)
	for _, page := range []string{"", "tutorials/worker-runs-once.html", "guarantees.html", "annotations.html", "compatibility.html", "api.html", "decisions/20261123-pages.html"} {
		for _, prefers := range []scheme{light, dark} {
			for _, width := range []int64{1280, 320} {
				t.Run(fmt.Sprint(page, " ", prefers, " ", width), func(t *testing.T) {
					p := open(t, address+page, width, prefers)
					value[bool](p, string(axe)+"; true")
					value[bool](p, `document.querySelectorAll("details").forEach((d) => d.open = true); true`)
					assert.Empty(t, value[[]string](p, violations))
					assert.LessOrEqual(t, value[int64](p, "document.scrollingElement.scrollWidth"), width, "nothing is cut off")
				})
			}
		}
	}
}

func TestCheckerFindsAButtonWithoutName(t *testing.T) {
	axe, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	require.NoError(t, err, "npm ci installs axe-core")
	p := open(t, serve(t), 1280, light)
	value[bool](p, string(axe)+"; true")
	value[bool](p, `document.querySelector("main").append(document.createElement("button")); true`)
	found := value[[]string](p, violations)
	require.Len(t, found, 1)
	assert.Contains(t, found[0], "button-name")
}

func TestKeyboardSearchesAndReachesAResult(t *testing.T) {
	p := open(t, serve(t)+"tutorials/nightly-job.html", 1280, light)
	p.do(chromedp.KeyEvent("/"))
	p.await(`document.activeElement.id === "words"`)
	p.do(chromedp.KeyEvent("fencing TOKEN"))
	p.await(`document.querySelectorAll("#results a").length > 3`)
	assert.Regexp(t, `^\d+ results`, value[string](p, `document.getElementById("count").textContent`))
	p.do(chromedp.KeyEvent("x"))
	p.await(`document.querySelectorAll("#results a").length === 0`)
	assert.Equal(t, "0 results", value[string](p, `document.getElementById("count").textContent`))
	p.do(chromedp.KeyEvent(kb.Escape))
	p.await(`document.getElementById("count").textContent === ""`)
	p.do(chromedp.KeyEvent("a nightly job never overlaps"))
	p.await(`document.querySelectorAll("#results a").length > 0`)
	p.do(chromedp.KeyEvent(kb.Tab))
	assert.Regexp(t, `/docs/library\.html#a-nightly-job-never-overlaps$`, value[string](p, "document.activeElement.href"))
}

func TestResultsBreakNoRuleOfAccessibility(t *testing.T) {
	axe, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	require.NoError(t, err, "npm ci installs axe-core")
	for prefers, width := range map[scheme]int64{light: 1280, dark: 320} {
		p := open(t, serve(t), width, prefers)
		p.do(chromedp.KeyEvent("/"), chromedp.KeyEvent("metaparticle"))
		p.await(`document.querySelectorAll("#results a").length === 20`)
		value[bool](p, string(axe)+"; true")
		assert.Empty(t, value[[]string](p, violations))
		assert.LessOrEqual(t, value[int64](p, "document.scrollingElement.scrollWidth"), width, "nothing is cut off")
	}
}

func TestFirstKeySkipsToTheContent(t *testing.T) {
	p := open(t, serve(t), 1280, light)
	p.do(chromedp.KeyEvent(kb.Tab))
	assert.Equal(t, "Skip to the content", value[string](p, "document.activeElement.textContent"))
	assert.GreaterOrEqual(t, value[float64](p, "document.activeElement.getBoundingClientRect().top"), 0.0, "the focused link is visible")
	p.do(chromedp.KeyEvent(kb.Enter))
	p.await(`document.activeElement.id === "content"`)
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
	p := open(t, "file://"+filepath.Join(dir, "decisions", "20261123-pages.html"), 320, dark)
	assert.NotEqual(t, "rgb(0, 0, 0)", value[string](p, "getComputedStyle(document.body).color"), "the style is in force")
	p.do(chromedp.KeyEvent("/"), chromedp.KeyEvent("semaphore"))
	p.await(`document.querySelectorAll("#results a").length > 3`)
}
