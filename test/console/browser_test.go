// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/url"
	"os"
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

	"github.com/metaparticle-io/metaparticle/console/serve"
)

// soon bounds each wait. A busy machine starts the browser in some seconds.
const soon = 60 * time.Second

// browser is the one process of all tests. Each test has a tab of its own.
var browser context.Context

func TestMain(m *testing.M) {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // the tests run as root
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

// tab is a tab with the page, and the console that serves it.
type tab struct {
	*testing.T
	*story

	ctx     context.Context
	console *serve.Server
	server  *httptest.Server

	mu sync.Mutex
	// asked are the hosts of all requests. The field complaints has the browser's errors.
	asked      map[string]bool
	complaints []string
}

// scheme is a preference of the person.
type scheme string

const (
	light scheme = "light"
	dark  scheme = "dark"
)

// open opens the page with a story, as wide as given.
func open(t *testing.T, s *story, width int64, prefers scheme) *tab {
	t.Helper()
	p := &tab{T: t, story: s, console: serve.New(), asked: map[string]bool{}}
	p.console.Now = func() time.Time { return noon }
	p.server = httptest.NewServer(p.console.Handler())
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(p.server.Close)
	t.Cleanup(p.server.CloseClientConnections)
	t.Cleanup(cancel)
	p.ctx = ctx
	// The first call makes the tab, whose life must not end with a bounded context.
	require.NoError(t, chromedp.Do(ctx))
	require.NoError(t, chromedp.Listen(ctx, p.note))
	p.publish()
	p.do(
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
		chromedp.Navigate(p.server.URL),
	)
	p.await(`document.getElementById("connection").textContent === "live"`)
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		own, err := url.Parse(p.server.URL)
		require.NoError(t, err)
		assert.Equal(t, map[string]bool{own.Host: true}, p.asked, "no request leaves the host")
		assert.Empty(t, p.complaints)
	})
	return p
}

// note notes what the browser reports.
func (p *tab) note(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		at, err := url.Parse(e.Request.URL)
		if err != nil || at.Host == "" {
			p.asked[e.Request.URL] = true
			return
		}
		p.asked[at.Host] = true
	case *log.EventEntryAdded:
		// The browser complains about a stream that a test has cut.
		if !strings.Contains(e.Entry.Text, "net::ERR_") {
			p.complaints = append(p.complaints, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, e.ExceptionDetails.Text)
	}
}

// publish shows the slots of the story.
func (p *tab) publish() {
	p.Helper()
	require.NoError(p, p.console.Publish(p.story.slots(), p.story.trouble))
}

// do carries out actions in the tab.
func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	require.NoError(p, chromedp.Do(ctx, actions...))
}

// press presses keys.
func (p *tab) press(keys string) {
	p.Helper()
	p.do(chromedp.KeyEvent(keys))
}

// value returns the value of an expression of JavaScript.
func value[T any](p *tab, expression string) T {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	result, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(p, err, expression)
	return result
}

// await waits until an expression of JavaScript is true.
func (p *tab) await(expression string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[any](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(soon)))
	require.NoError(p, err, expression)
}

// script carries out statements of JavaScript.
func (p *tab) script(statements string) {
	p.Helper()
	value[bool](p, "(() => { "+statements+"; return true })()")
}

// text returns the text of the elements that a selector selects.
func (p *tab) text(selector string) string {
	p.Helper()
	return value[string](p, `[...document.querySelectorAll("`+selector+`")].map((e) => e.innerText).join("\n")`)
}
