// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/console/serve"
	"github.com/metaparticle-io/metaparticle/pages"
	"github.com/metaparticle-io/metaparticle/test/browser/tab"
)

func TestMain(m *testing.M) { tab.Main(m) }

// page is a tab with the console's page, and the console that serves this page.
type page struct {
	*tab.Tab
	*story

	console *serve.Server
	server  *httptest.Server
}

// open opens the page of a console that shows the story, in a tab of the given width.
func open(t *testing.T, s *story, width int64, prefers tab.Scheme) *page {
	t.Helper()
	p := &page{story: s, console: serve.New()}
	p.console.Now, p.console.Docs = func() time.Time { return noon }, http.StripPrefix("/docs", pages.Handler())
	p.server = httptest.NewServer(p.console.Handler())
	t.Cleanup(p.server.Close)
	t.Cleanup(p.server.CloseClientConnections)
	require.NoError(t, p.console.Publish(s.slots(), s.trouble))
	p.Tab = tab.Open(t, p.server.URL, width, prefers)
	p.Await(`document.getElementById("connection").textContent === "live"`)
	return p
}

// publish shows the slots of the story.
func (p *page) publish() {
	p.Helper()
	require.NoError(p, p.console.Publish(p.story.slots(), p.story.trouble))
}
