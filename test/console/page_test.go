// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

func TestPageShowsAHandoverAsItHappens(t *testing.T) {
	p := open(t, afternoon(), 1280, light)
	row := fmt.Sprintf(`[...document.querySelectorAll("#rows tr")].find((r) => r.innerText.includes(%q))`, biller)
	assert.Contains(t, value[string](p, row+".innerText"), "biller-7d9f-x2x4q\nfor 5h, token 4711")
	p.script(row + ".querySelector('button').focus()")
	p.press(kb.Enter)
	p.await(`document.querySelector(".detail") !== null`)
	assert.Contains(t, p.text(".detail"), "biller-7d9f-k8w2n for 3h (Ready)\nStandingBy: biller-7d9f-x2x4q holds "+biller)

	p.handsOver()
	p.publish()
	p.await(row + `.innerText.includes("biller-7d9f-k8w2n")`)
	assert.Contains(t, value[string](p, row+".innerText"), "for 0s")
	assert.Contains(t, p.text("#handovers li:first-child"), "biller-7d9f-k8w2n from biller-7d9f-x2x4q")
	assert.Contains(t, p.text("#handovers li:first-child"), "PodDeleted: draining to hand over "+biller+": this pod is being deleted")
	assert.Contains(t, p.text("#handovers li:first-child"), "1s ago, 1s after the release")
	assert.Equal(t, biller+" is now held by biller-7d9f-k8w2n, from biller-7d9f-x2x4q. PodDeleted.", value[string](p, `document.getElementById("said").textContent`))
	assert.Equal(t, biller, value[string](p, "document.activeElement.textContent"), "the focus stays")
}

func TestPageTellsWhatNeedsAttention(t *testing.T) {
	p := open(t, afternoon(), 1280, light)
	assert.Contains(t, p.text("#attention-list"), "nobody holds singleton.statefulset.ledger, and 1 pod waits")
	assert.NotContains(t, p.text("#attention-list"), "lock.report")
	assert.Equal(t, "(1) Slots – Metaparticle", value[string](p, "document.title"))
	assert.Regexp(t, `(?s)^lock.report\n37m\nreport-daily-2mm4c and 1 other pod, behind report-weekly-qq9zt\n.*ledger\n4m\n.*semaphore.licence\n90s\n`, p.text("#waits"))
	assert.NotContains(t, p.text("#waits"), biller, "standbys of a singleton wait by design")
	p.script(`document.querySelector("#attention-list button").click()`)
	p.await(`document.querySelector(".detail") !== null`)
	assert.Contains(t, p.text(".detail"), "ChildOfEarlierHold: a child of an earlier hold may still run")

	p.state.Now, p.state.Seen = noon, map[types.UID]time.Time{"shoplock.report": noon.Add(-20 * time.Second)}
	p.publish()
	p.await(`document.title.startsWith("(2)")`)
	assert.Contains(t, p.text("#attention-list"), "the holder report-weekly-qq9zt of lock.report does not renew: the slot is free once its lease expires")
	assert.Contains(t, p.text("#rows .bad"), "no renewal for 20s")

	p.trouble = "A watch of the API server failed."
	p.publish()
	p.await(`!document.getElementById("trouble").hidden`)
	assert.Equal(t, p.trouble, p.text("#trouble"))
}

func TestPageFiltersByNamespaceAndWords(t *testing.T) {
	p := open(t, afternoon(), 1280, light)
	rows := `[...document.querySelectorAll("#rows .name")].map((e) => e.textContent).join(" ")`
	all := "singleton.statefulset.ledger semaphore.licence lock.report " + biller
	assert.Equal(t, all, value[string](p, rows))
	p.script(`document.getElementById("search").focus()`)
	p.press("shop weekly")
	p.await(rows + ` === "lock.report"`)
	assert.Equal(t, "1 of 6 slots", p.text("#count"))
	p.press("x")
	p.await(`!document.getElementById("empty").hidden`)
	p.script(`const s = document.getElementById("search"); s.value = ""; s.dispatchEvent(new Event("input"))`)
	p.script(`document.getElementById("namespace").focus()`)
	p.press("r")
	p.await(rows + ` === "semaphore.licence"`)
}

func TestPageShowsForeignTextAsText(t *testing.T) {
	p := open(t, afternoon(), 1280, light)
	p.script(openAll)
	p.await(`document.querySelectorAll(".detail").length === 4`)
	assert.Contains(t, p.text(".detail"), "<img src=x onerror=alert(1)>")
	assert.Equal(t, 1, value[int](p, `document.images.length`), "the page's own icon")
}

func TestPageRecoversFromALostConnection(t *testing.T) {
	p := open(t, afternoon(), 1280, light)
	p.script(`window.states = []; new MutationObserver(() => states.push(document.getElementById("connection").dataset.state))
		.observe(document.getElementById("connection"), {attributes: true})`)
	p.server.CloseClientConnections()
	p.handsOver()
	p.publish()
	p.await(`states.includes("lost") && states.at(-1) === "live"`)
	assert.Contains(t, p.text("#rows"), "biller-7d9f-k8w2n")
}

// openAll shows the details of all slots.
const openAll = `[...document.querySelectorAll("#rows button")].forEach((b) => b.click())`

// check is the result of axe-core.
const check = `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
	.then((r) => r.violations.map((v) => v.id + ": " + v.help + " " + v.nodes.map((n) => n.html + " " + n.failureSummary).join(" | ")))`

func TestPageBreaksNoRuleOfAccessibility(t *testing.T) {
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	axe, err := os.ReadFile(filepath.Join(cache, "metaparticle", "axe", "node_modules", "axe-core", "axe.min.js"))
	require.NoError(t, err, "make unit installs axe-core")
	for name, s := range map[string]*story{"slots": afternoon(), "no slots": new(story)} {
		for _, prefers := range []scheme{light, dark} {
			for _, width := range []int64{1280, 320} {
				t.Run(fmt.Sprint(name, " ", prefers, " ", width), func(t *testing.T) {
					p := open(t, s, width, prefers)
					p.script(string(axe))
					assert.Empty(t, value[[]string](p, check))
					p.script(openAll)
					assert.Empty(t, value[[]string](p, check), "with all details")
					assert.LessOrEqual(t, value[int64](p, "document.scrollingElement.scrollWidth"), width, "nothing is cut off")
				})
			}
		}
	}
}

func TestKeyboardReachesEachControl(t *testing.T) {
	p := open(t, afternoon(), 1280, light)
	const controls = `[...document.querySelectorAll("a[href], button, input, select")].filter((e) => e.checkVisibility()).map((e) => e.textContent || e.id)`
	all := value[[]string](p, controls)
	require.Greater(t, len(all), 9)
	var reached []string
	for range all {
		p.press(kb.Tab)
		reached = append(reached, value[string](p, `document.activeElement.textContent || document.activeElement.id`))
		assert.NotEqual(t, "none", value[string](p, `getComputedStyle(document.activeElement).outlineStyle`), "the focus is visible")
	}
	assert.Equal(t, all, reached)

	p.script(`document.activeElement.blur()`)
	p.press("/")
	assert.Equal(t, "search", value[string](p, "document.activeElement.id"))
	p.script(`document.querySelector("#rows button").focus()`)
	p.press(kb.Enter)
	p.await(`document.querySelector("#slots-title") !== null && document.querySelector(".detail") !== null`)
	p.script(`document.querySelector(".skip").focus()`)
	p.press(kb.Enter)
	p.await(`document.activeElement.id === "slots"`)
}

// TestPictureShowsTheConsole writes a picture of the page, if the environment names a file.
func TestPictureShowsTheConsole(t *testing.T) {
	file := os.Getenv("PICTURE")
	if file == "" {
		t.Skip("no file is named")
	}
	s := afternoon()
	s.handsOver()
	p := open(t, s, 1280, light)
	image, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, image, 0o600))
}
