// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/serve"
	"github.com/metaparticle-io/metaparticle/test/browser/tab"
)

func TestOpenConsolePageShowsANewHandover(t *testing.T) {
	p := open(t, afternoon(), 1280, tab.Light)
	row := fmt.Sprintf(`[...document.querySelectorAll("#rows tr")].find((r) => r.innerText.includes(%q))`, biller)
	assert.Contains(t, tab.Value[string](p.Tab, row+".innerText"), "biller-7d9f-x2x4q\nfor 5h, token 4711\non worker-q")
	p.Script(row + ".querySelector('button').focus()")
	p.Press(kb.Enter)
	p.Await(`document.querySelector(".detail") !== null`)
	assert.Contains(t, p.Text(".detail"), "biller-7d9f-k8w2n on worker-n for 3h (Ready)\nStandingBy: biller-7d9f-x2x4q holds "+biller)

	p.handsOver()
	p.publish()
	p.Await(row + `.innerText.includes("biller-7d9f-k8w2n")`)
	assert.Contains(t, tab.Value[string](p.Tab, row+".innerText"), "for 0s")
	assert.Contains(t, p.Text("#handovers li:first-child"), "biller-7d9f-k8w2n from biller-7d9f-x2x4q")
	assert.Contains(t, p.Text("#handovers li:first-child"), "PodDeleted: draining to hand over "+biller+": this pod is being deleted")
	assert.Contains(t, p.Text("#handovers li:first-child"), "1s ago, 1s after the release, at 11:59:59 UTC")
	assert.Equal(t, biller+" is now held by biller-7d9f-k8w2n, from biller-7d9f-x2x4q. PodDeleted.", tab.Value[string](p.Tab, `document.getElementById("said").textContent`))
	assert.Equal(t, biller, tab.Value[string](p.Tab, "document.activeElement.textContent"), "the focus stays")
}

func TestConsoleWarnsOfUnheldSlotsAndSilentHolders(t *testing.T) {
	p := open(t, afternoon(), 1280, tab.Light)
	assert.Contains(t, p.Text("#attention-list"), "nobody holds singleton.statefulset.ledger, and 1 pod waits")
	assert.NotContains(t, p.Text("#attention-list"), "lock.report")
	assert.Equal(t, "(1) Slots – Metaparticle", tab.Value[string](p.Tab, "document.title"))
	assert.Regexp(t, `(?s)^lock.report\n37m\nreport-daily-2mm4c and 1 other pod, behind report-weekly-qq9zt\n.*ledger\n4m\n.*semaphore.licence\n90s\n`, p.Text("#waits"))
	assert.NotContains(t, p.Text("#waits"), biller, "standbys of a singleton wait by design")
	p.Script(`document.querySelector("#attention-list button").click()`)
	p.Await(`document.querySelector(".detail") !== null`)
	assert.Contains(t, p.Text(".detail"), "ChildOfEarlierHold: a child of an earlier hold may still run")

	p.state.Now, p.state.Seen = noon, map[types.UID]time.Time{"shoplock.report": noon.Add(-20 * time.Second)}
	p.publish()
	p.Await(`document.title.startsWith("(2)")`)
	assert.Contains(t, p.Text("#attention-list"), "the holder report-weekly-qq9zt of lock.report does not renew: the slot is free once its lease expires")
	assert.Contains(t, p.Text("#rows .bad"), "no renewal for 20s")

	p.trouble = "A watch of the API server failed."
	p.publish()
	p.Await(`!document.getElementById("trouble").hidden`)
	assert.Equal(t, p.trouble, p.Text("#trouble"))
	assert.Equal(t, "what is shown may be old", p.Text("#connection"))
	p.trouble = ""
	p.publish()
	p.Await(`document.getElementById("connection").textContent === "live"`)
}

func TestWorstProblemComesFirstWithACommandToCopy(t *testing.T) {
	s := afternoon()
	s.lease("shop", "lock.paused", "", 0)
	s.state.Leases[len(s.state.Leases)-1].Annotations[api.PausedAnnotation] = "acquire"
	s.lease("shop", "lock.evil", "x;reboot", time.Hour)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "front", Annotations: map[string]string{api.SingletonAnnotation: "true"}}}
	d.Status.Replicas = 2
	d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: "True", Reason: "FailedCreate", Message: `admission webhook "pods.metaparticle.io" denied the request: NoCommand: app: the image names no command. ` +
		"Do: set command (https://pages.example/reasons.html#nocommand)"}}
	old := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "biller", Annotations: d.Annotations}}
	old.Status.Replicas = 1
	d.Spec.Template.Annotations, old.Spec.Template.Annotations = d.Annotations, d.Annotations
	s.state.Workloads = append(s.state.Workloads, d, old)
	p := open(t, s, 1280, tab.Light)
	p.Script(`navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve() }`)
	assert.Equal(t, []string{
		"critical\nnobody holds singleton.statefulset.ledger, and 1 pod waits\nkubectl metaparticle explain -n payments pod/ledger-0\nCopy",
		"critical\n1 pod of Deployment/biller runs the application without a gate, whoever holds singleton.deployment.biller\nkubectl rollout restart -n shop deployment/biller\nCopy",
		"critical\n2 pods of Deployment/front run the application without a gate, whoever holds singleton.deployment.front\nkubectl metaparticle explain -n web deployment/front\nCopy",
		"warning\npods of Deployment/front are refused: NoCommand: app: the image names no command\nkubectl metaparticle explain -n web deployment/front\nCopy",
		"warning\nsingleton.deployment.front has no Lease yet: enroll has not made it\nkubectl metaparticle status -n web singleton.deployment.front\nCopy",
		"warning\nthe holder x;reboot of lock.evil is gone: the slot is free once its lease expires\nkubectl metaparticle status -n shop lock.evil\nCopy",
		"note\nlock.paused is paused by hand (acquire)\nkubectl metaparticle resume -n shop lock.paused\nCopy",
	}, tab.Value[[]string](p.Tab, `[...document.querySelectorAll(".problem")].map((e) => e.innerText.replace(/\n+/g, "\n"))`))
	assert.Equal(t, []string{"singleton.statefulset.ledger", biller, "singleton.deployment.front", "lock.evil", "lock.paused"},
		tab.Value[[]string](p.Tab, `[...document.querySelectorAll("#rows .name")].map((e) => e.textContent).slice(0, 5)`), "the worst slots come first")
	p.Script(`document.querySelector(".copy").click()`)
	p.Await(`copied === "kubectl metaparticle explain -n payments pod/ledger-0" && document.querySelector(".copy").textContent === "Copied"`)
	assert.Empty(t, p.Violations())
}

// The names in a Lease come from whoever may write it, and a person pastes a command into a shell.
func TestNoCommandContainsAWordThatAShellReads(t *testing.T) {
	s := afternoon()
	s.lease("shop", "lock.evil", "$(reboot)", time.Hour)
	s.pod("shop", "$(reboot)", time.Hour, "Holding", "holds lock.evil", "lock.evil")
	delete(s.state.Leases[len(s.state.Leases)-1].Annotations, api.ServingAnnotation)
	p := open(t, s, 1280, tab.Light)
	assert.Contains(t, p.Text("#attention-list"), "the holder $(reboot) of lock.evil does not serve")
	assert.NotContains(t, p.Text(".command"), "reboot")
	assert.Contains(t, p.Text(".command"), "pod/ledger-0")
}

// The namespace "aaa" is the first in alphabetical order, has the longest waits, and forges the
// latest handovers.
func TestHugeNamespaceNeverFillsTheWholeConsolePage(t *testing.T) {
	s := afternoon()
	s.event("shop", "biller-7d9f-x2x4q", api.ReasonAcquired, "this pod holds "+biller+" (token 4711)", 4*time.Hour)
	for i := range 210 {
		name := fmt.Sprint("lock.greedy-", i)
		s.lease("aaa", name, "", 0)
		s.pod("aaa", fmt.Sprint("greedy-", i), 24*time.Hour, "StandingBy", "waits", name)
		s.event("aaa", fmt.Sprint("greedy-", i), api.ReasonAcquired, "this pod holds "+name, 0)
	}
	p := open(t, s, 1280, tab.Light)
	count := func(items string) int { return tab.Value[int](p.Tab, `document.querySelectorAll("`+items+`").length`) }
	for part, c := range map[string]struct {
		items, other, left string
		most               int
	}{
		"Needs attention":    {"#attention-list > li", "singleton.statefulset.ledger", "161 more rows", 50},
		"Waited for longest": {"#waits > li", "lock.report", "203 more rows", 10},
		"Handovers":          {"#handovers > li", "biller-7d9f-x2x4q", "172 more handovers", 40},
		"Slots":              {"#rows > tr", biller, "14 more rows", 200},
	} {
		assert.Equal(t, c.most, count(c.items), part)
		assert.Contains(t, tab.Value[string](p.Tab, `[...document.querySelectorAll("`+c.items+`")].map((e) => e.innerText).join("\n")`), c.other, part)
		assert.Contains(t, tab.Value[string](p.Tab, `[...document.querySelectorAll(".empty")].filter((e) => e.checkVisibility()).map((e) => e.innerText).join("\n")`),
			c.left+": choose a namespace, or narrow the search.", part)
	}
	assert.Empty(t, p.Violations())
	assert.Equal(t, "(211) Slots – Metaparticle", tab.Value[string](p.Tab, "document.title"))

	p.Script(`const s = document.getElementById("namespace"); s.value = "shop"; s.dispatchEvent(new Event("change"))`)
	assert.Equal(t, 0, tab.Value[int](p.Tab, `[...document.querySelectorAll(".empty")].filter((e) => e.checkVisibility()).length`), "nothing is left out")
	assert.Contains(t, p.Text("#handovers"), "no Event tells of a release before it")
}

// TestPageShowsThatConsoleAwaitsTheAPIServer opens the page before the console has read any slot.
func TestPageShowsThatConsoleAwaitsTheAPIServer(t *testing.T) {
	console := serve.New()
	server := httptest.NewServer(console.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	p := tab.Open(t, server.URL, 1280, tab.Light)
	waits := `document.getElementById("connection").textContent === "waiting for the API server"`
	require.NoError(t, console.Warn("The watch of leases is closed."))
	p.Await(waits)
	assert.Equal(t, "The watch of leases is closed.", p.Text("#trouble"))
	require.NoError(t, console.Warn(""))
	p.Await(`document.getElementById("trouble").hidden && document.getElementById("connection").dataset.state === "wait" && ` + waits)
	require.NoError(t, console.Publish(afternoon().slots(), ""))
	p.Await(`document.getElementById("connection").textContent === "live"`)
}

func TestConsolePageLinksToTheDocumentation(t *testing.T) {
	p := open(t, afternoon(), 1280, tab.Light)
	p.Await(`!document.getElementById("docs").hidden`)
	p.Do(chromedp.Navigate(tab.Value[string](p.Tab, `document.getElementById("docs").href`)))
	assert.NotEmpty(t, p.Text("main h1"))
	p.Do(chromedp.Navigate(tab.Value[string](p.Tab, `document.querySelector('a[href$="guarantees.html"]').href`)))
	assert.Contains(t, p.Text("main h1"), "uarantee")
}

func TestConsolePageFiltersSlotsByNamespaceAndWords(t *testing.T) {
	p := open(t, afternoon(), 1280, tab.Light)
	rows := `[...document.querySelectorAll("#rows .name")].map((e) => e.textContent).join(" ")`
	all := "singleton.statefulset.ledger semaphore.licence lock.report " + biller
	assert.Equal(t, all, tab.Value[string](p.Tab, rows))
	p.Script(`document.getElementById("search").focus()`)
	p.Press("shop weekly")
	p.Await(rows + ` === "lock.report"`)
	assert.Equal(t, "1 of 6 slots", p.Text("#count"))
	p.Press("x")
	p.Await(`!document.getElementById("empty").hidden`)
	p.Script(`const s = document.getElementById("search"); s.value = ""; s.dispatchEvent(new Event("input"))`)
	p.Script(`document.getElementById("namespace").focus()`)
	p.Press("r")
	p.Await(rows + ` === "semaphore.licence"`)
}

func TestConsolePageShowsHTMLFromClusterAsText(t *testing.T) {
	p := open(t, afternoon(), 1280, tab.Light)
	p.Script(openAll)
	p.Await(`document.querySelectorAll(".detail").length === 4`)
	assert.Contains(t, p.Text(".detail"), "<img src=x onerror=alert(1)>")
	assert.Equal(t, 1, tab.Value[int](p.Tab, `document.images.length`), "the page's own icon")
}

func TestConsolePageRecoversFromALostConnection(t *testing.T) {
	p := open(t, afternoon(), 1280, tab.Light)
	p.Script(`window.states = []; new MutationObserver(() => states.push(document.getElementById("connection").dataset.state))
		.observe(document.getElementById("connection"), {attributes: true})`)
	p.ExpectCuts()
	p.server.CloseClientConnections()
	p.handsOver()
	p.publish()
	p.Await(`states.includes("lost") && states.at(-1) === "live"`)
	assert.Contains(t, p.Text("#rows"), "biller-7d9f-k8w2n")
}

func TestSlotsAreCardsOnAPhone(t *testing.T) {
	p := open(t, afternoon(), 390, tab.Light)
	assert.GreaterOrEqual(t, tab.Value[int](p.Tab, `Math.min(...[...document.querySelectorAll("#rows .pod")].map((e) => e.parentElement.clientWidth))`), 300,
		"the names of pods have the width of the screen")
	assert.Equal(t, `"Holder"`, tab.Value[string](p.Tab, `getComputedStyle(document.querySelector("#rows td:nth-child(2)"), "::before").content`))
}

// openAll is a script that shows the details of all slots.
const openAll = `[...document.querySelectorAll("#rows button")].forEach((b) => b.click())`

func TestConsolePageObeysAccessibilityRules(t *testing.T) {
	for name, s := range map[string]*story{"slots": afternoon(), "no slots": new(story)} {
		for _, prefers := range []tab.Scheme{tab.Light, tab.Dark} {
			for _, width := range []int64{1280, 320} {
				t.Run(fmt.Sprint(name, " ", prefers, " ", width), func(t *testing.T) {
					p := open(t, s, width, prefers)
					assert.Empty(t, p.Violations())
					p.Script(openAll)
					assert.Empty(t, p.Violations(), "with all details")
					assert.LessOrEqual(t, tab.Value[int64](p.Tab, "document.scrollingElement.scrollWidth"), width, "nothing is cut off")
				})
			}
		}
	}
}

func TestKeyboardReachesEachControlOfTheConsolePage(t *testing.T) {
	p := open(t, afternoon(), 1280, tab.Light)
	const controls = `[...document.querySelectorAll("a[href], button, input, select")].filter((e) => e.checkVisibility()).map((e) => e.textContent || e.id)`
	all := tab.Value[[]string](p.Tab, controls)
	require.Greater(t, len(all), 9)
	var reached []string
	for range all {
		p.Press(kb.Tab)
		reached = append(reached, tab.Value[string](p.Tab, `document.activeElement.textContent || document.activeElement.id`))
		assert.NotEqual(t, "none", tab.Value[string](p.Tab, `getComputedStyle(document.activeElement).outlineStyle`), "the focus is visible")
	}
	assert.Equal(t, all, reached)

	p.Script(`document.activeElement.blur()`)
	p.Press("/")
	assert.Equal(t, "search", tab.Value[string](p.Tab, "document.activeElement.id"))
	p.Script(`document.querySelector("#rows button").focus()`)
	p.Press(kb.Enter)
	p.Await(`document.querySelector("#slots-title") !== null && document.querySelector(".detail") !== null`)
	p.Script(`document.querySelector(".skip").focus()`)
	p.Press(kb.Enter)
	p.Await(`document.activeElement.id === "slots"`)
}

// TestConsoleScreenshotIsWritten writes a picture of a real cluster's console: start "kubectl metaparticle console", and
// name its address in CONSOLE and the file in PICTURE.
func TestConsoleScreenshotIsWritten(t *testing.T) {
	file, address := os.Getenv("PICTURE"), os.Getenv("CONSOLE")
	if file == "" || address == "" {
		t.Skip("no file and no console are named")
	}
	p := tab.Open(t, address, 1280, tab.Light)
	p.Await(`document.getElementById("connection").textContent === "live"`)
	require.NoError(t, os.WriteFile(file, p.View(), 0o600))
}
