// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
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

	"github.com/metaparticle-io/metaparticle/pages"
)

// soon bounds each wait. A busy machine starts the browser in some seconds.
const soon = 60 * time.Second

// browser is the one process of all tests. Each test has a tab of its own.
var browser context.Context

func TestMain(m *testing.M) {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // the tests run as root
		chromedp.DisableGPU,
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

// tab is a tab of the browser.
type tab struct {
	*testing.T
	ctx context.Context

	mu sync.Mutex
	// asked are the hosts of all requests; a page from the disk has none. The field complaints
	// has the browser's errors.
	asked      map[string]bool
	complaints []string
}

// scheme is a preference of the person.
type scheme string

const (
	light scheme = "light"
	dark  scheme = "dark"
)

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

// open opens a tab, as wide as given. When the test ends, the tab has sent no request to another host
// than that of the address, and the browser has reported no error.
func open(t *testing.T, address string, width int64, prefers scheme) *tab {
	t.Helper()
	p := &tab{T: t, asked: map[string]bool{}}
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	p.ctx = ctx
	// The first call makes the tab, whose life must not end with a bounded context.
	require.NoError(t, chromedp.Do(ctx))
	require.NoError(t, chromedp.Listen(ctx, p.note))
	p.do(
		chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
			_, err := cdp.Call(ctx, tab, network.Enable, network.EnableParams{})
			_, logErr := cdp.Call(ctx, tab, log.Enable, cdp.Empty{})
			_, runErr := cdp.Call(ctx, tab, runtime.Enable, cdp.Empty{})
			_, mediaErr := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: string(prefers)}},
			})
			return errors.Join(err, logErr, runErr, mediaErr)
		}),
		chromedp.EmulateViewport(width, 900),
		chromedp.Navigate(address),
	)
	own, err := url.Parse(address)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
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
		if err != nil {
			p.asked[e.Request.URL] = true
			return
		}
		// A browser asks for this file by itself.
		if at.Path != "/favicon.ico" {
			p.asked[at.Host] = true
		}
	case *log.EventEntryAdded:
		if e.Entry.URL == "" || !isFavicon(e.Entry.URL) {
			p.complaints = append(p.complaints, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, e.ExceptionDetails.Text)
	}
}

func isFavicon(address string) bool {
	at, err := url.Parse(address)
	return err == nil && at.Path == "/favicon.ico"
}

// do carries out actions in the tab.
func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	require.NoError(p, chromedp.Do(ctx, actions...))
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
