// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package tab

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// soon bounds each wait. A busy machine starts the browser in some seconds.
const soon = 60 * time.Second

// browser is the context of the one browser that all tests of a package share. Each test has a
// tab of its own.
var browser context.Context

// Main runs the tests of a package with a browser. Each package calls Main from its TestMain.
func Main(m *testing.M) {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // the tests run as root, which the sandbox refuses
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.WSURLReadTimeout(soon),
	)
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	var quit context.CancelFunc
	browser, quit = chromedp.NewContext(allocator)
	code := 1
	if err := chromedp.Do(browser); err == nil {
		code = m.Run()
	} else {
		os.Stderr.WriteString("start the browser: " + err.Error() + "\n")
	}
	quit()
	end()
	os.Exit(code)
}

// Tab is a tab of the browser.
type Tab struct {
	*testing.T

	ctx context.Context

	mu sync.Mutex
	// asked are the hosts of all requests. For a page from the disk, the host is empty. The field
	// "complaints" has the browser's errors.
	asked      map[string]bool
	complaints []string
	// cut reports that the test cuts connections.
	cut bool
}

// Scheme is the colour scheme that the browser's user prefers.
type Scheme string

// These are the schemes that a user can prefer.
const (
	Light Scheme = "light"
	Dark  Scheme = "dark"
)

// Open opens an address in a new tab of the given width.
func Open(t *testing.T, address string, width int64, prefers Scheme) *Tab {
	t.Helper()
	p := &Tab{T: t, asked: map[string]bool{}}
	own, err := url.Parse(address)
	require.NoError(t, err)
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	p.ctx = ctx
	// The first call of chromedp.Do makes the tab. The end of that call's context would end the
	// tab, so the context has no timeout.
	require.NoError(t, chromedp.Do(ctx))
	require.NoError(t, chromedp.Listen(ctx, p.note))
	p.Do(
		chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
			_, err := cdp.Call(ctx, tab, network.Enable, network.EnableParams{})
			_, logErr := cdp.Call(ctx, tab, log.Enable, cdp.Empty{})
			_, runErr := cdp.Call(ctx, tab, runtime.Enable, cdp.Empty{})
			_, mediaErr := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: string(prefers)}, {Name: "prefers-reduced-motion", Value: "reduce"},
			}})
			return errors.Join(err, logErr, runErr, mediaErr)
		}),
		chromedp.EmulateViewport(width, 900),
		chromedp.Navigate(address),
	)
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		assert.Equal(t, map[string]bool{own.Host: true}, p.asked, "no request leaves the host")
		assert.Empty(t, p.complaints)
	})
	return p
}

// ExpectCuts ignores the browser's later errors about connections that the test cuts.
func (p *Tab) ExpectCuts() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

// note records the host of each request, and each error that the browser reports.
func (p *Tab) note(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		at, err := url.Parse(e.Request.URL)
		switch {
		case err != nil:
			p.asked[e.Request.URL] = true
		case !isFavicon(e.Request.URL):
			p.asked[at.Host] = true
		}
	case *log.EventEntryAdded:
		if !isFavicon(e.Entry.URL) && (!p.cut || !strings.Contains(e.Entry.Text, "net::ERR_")) {
			p.complaints = append(p.complaints, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, e.ExceptionDetails.Text)
	}
}

// isFavicon reports whether the address is that of the icon that a browser requests by itself.
func isFavicon(address string) bool {
	at, err := url.Parse(address)
	return err == nil && at.Path == "/favicon.ico"
}

// Do carries out actions in the tab.
func (p *Tab) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	require.NoError(p, chromedp.Do(ctx, actions...))
}

// Press presses keys.
func (p *Tab) Press(keys string) {
	p.Helper()
	p.Do(chromedp.KeyEvent(keys))
}

// Value returns the value of an expression of JavaScript.
func Value[T any](p *Tab, expression string) T {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	result, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(p, err, expression)
	return result
}

// Await waits until an expression of JavaScript is true.
func (p *Tab) Await(expression string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[any](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(soon)))
	require.NoError(p, err, expression)
}

// Script carries out statements of JavaScript.
func (p *Tab) Script(statements string) {
	p.Helper()
	Value[bool](p, "(() => { "+statements+"; return true })()")
}

// Text returns the text of the elements that a selector selects.
func (p *Tab) Text(selector string) string {
	p.Helper()
	return Value[string](p, `[...document.querySelectorAll("`+selector+`")].map((e) => e.innerText).join("\n")`)
}

// check is the JavaScript that runs axe-core. The result is a list with a text for each violation.
const check = `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
	.then((r) => r.violations.map((v) => v.id + ": " + v.help + " " + v.nodes.map((n) => n.html + " " + n.failureSummary).join(" | ")))`

// Violations returns the mistakes of accessibility that axe-core finds in the page as it is now.
func (p *Tab) Violations() []string {
	p.Helper()
	cache, err := os.UserCacheDir()
	require.NoError(p, err)
	axe, err := os.ReadFile(filepath.Join(cache, "metaparticle", "axe", "node_modules", "axe-core", "axe.min.js"))
	require.NoError(p, err, "make unit installs axe-core")
	p.Script(string(axe))
	return Value[[]string](p, check)
}

// View returns a picture of what the window shows of the page, as PNG.
func (p *Tab) View() []byte {
	p.Helper()
	image, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	require.NoError(p, err)
	return image
}
