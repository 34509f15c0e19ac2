// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/console/view"
)

//go:embed page
var files embed.FS

// policy is the Content-Security-Policy of all answers, except those of the documentation. The
// handler of the documentation replaces the policy. No page of the console needs an exception.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler returns the handler of the page, of its stream, and of the documentation.
func (s *Server) Handler() http.Handler {
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(page))
	mux.HandleFunc("GET /events", s.stream)
	mux.HandleFunc("HEAD /events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodGet) // a HEAD request would take the place of a stream, and get nothing
		http.Error(w, "read the stream with GET", http.StatusMethodNotAllowed)
	})
	if s.Docs != nil {
		mux.Handle("GET /docs/", s.Docs)
	}
	return guarded(mux)
}

// guarded adds the headers of all answers, and refuses requests of other sites.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !loopback(r.Host):
			http.Error(w, "the console answers only under a loopback name", http.StatusMisdirectedRequest)
		case foreign(r):
			http.Error(w, "the console answers no page of another site", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// loopback reports whether a Host header names the loopback: localhost or an address, and perhaps a
// port.
func loopback(host string) bool {
	name, port, more := strings.Cut(host, ":")
	if inner, ok := strings.CutPrefix(host, "["); ok {
		var after string
		if name, after, ok = strings.Cut(inner, "]"); !ok || !strings.Contains(name, ":") {
			return false
		}
		if port, more = strings.CutPrefix(after, ":"); !more && after != "" {
			return false
		}
	}
	if _, err := strconv.ParseUint(port, 10, 16); more && err != nil {
		return false
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(name)
	return err == nil && address.IsLoopback() && address.Zone() == ""
}

// foreign reports whether a page of another site made the browser send the request. A link on any
// site may lead to a page of the console, so a click on such a link is not foreign.
func foreign(r *http.Request) bool {
	if origins, sent := r.Header["Origin"]; sent && !slices.Equal(origins, []string{"http://" + r.Host}) {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	page := r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/docs/")
	return !page || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// stream writes the messages of one stream until the browser or the server ends it.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	ctx, drop := context.WithCancel(r.Context())
	defer drop()
	one, err := s.join(drop)
	switch {
	case err != nil:
		http.Error(w, "the state cannot be encoded", http.StatusInternalServerError)
		return
	case one == nil:
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("the console serves at most %d streams", maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer s.leave(one)
	w.Header().Set("Content-Type", "text/event-stream")
	out := writer{ctx, w, http.NewResponseController(w)}
	stop := context.AfterFunc(ctx, out.interrupt)
	defer stop()
	if !out.write(message{[]byte("retry: 1000\n\n")}) {
		return
	}
	ticker := time.NewTicker(alive)
	defer ticker.Stop()
	for {
		var next message
		select {
		case <-ctx.Done():
			return
		case next = <-one.queue:
			one.waiting.Add(-next.size())
		case <-ticker.C:
			next = s.alive()
		}
		if !out.write(next) {
			return
		}
	}
}

// writer writes messages to one browser until ctx ends.
type writer struct {
	ctx  context.Context
	out  io.Writer
	with *http.ResponseController
}

// write writes a message in chunks, and reports whether the browser took all chunks in time.
func (o writer) write(m message) bool {
	for _, part := range m {
		for chunk := range slices.Chunk(part, maxChunk) {
			_ = o.with.SetWriteDeadline(time.Now().Add(writeTimeout))
			if o.ctx.Err() != nil { // checked after SetWriteDeadline, because that call may have undone an interruption
				return false
			}
			if _, err := o.out.Write(chunk); err != nil || o.with.Flush() != nil {
				return false
			}
		}
	}
	return true
}

// interrupt ends a write that waits for the browser.
func (o writer) interrupt() { _ = o.with.SetWriteDeadline(time.Unix(1, 0)) }

// maxState bounds the bytes of the rows of all slots.
const maxState = 16 << 20

// unreadable replaces the name of a slot's holder if the slot cannot be encoded as JSON.
const unreadable = "(this slot cannot be shown)"

// shown is a slot, as the page gets it.
type shown struct {
	view.Slot

	Key     string `json:"key"`
	Group   string `json:"group"`
	Healthy bool   `json:"healthy"`
}

// rowsOf returns the JSON of each slot by key, and the number of slots that are left out. In a
// namespace that exceeds its share, each slot first loses all handovers but the latest.
func rowsOf(slots []view.Slot) (rows map[string]json.RawMessage, left int) {
	sizes, all := map[string]int{}, 0
	rows = make(map[string]json.RawMessage, len(slots))
	for _, slot := range slots {
		row := encode(slot)
		sizes[slot.Namespace] += len(row)
		if all += len(row); all <= maxState {
			rows[slot.Namespace+"/"+slot.Slot] = row
		}
	}
	if all <= maxState {
		return rows, 0
	}
	clear(rows)
	share, used := shareOf(sizes), map[string]int{}
	for _, slot := range slots {
		if sizes[slot.Namespace] > share {
			slot.Handovers = slot.Handovers[:min(len(slot.Handovers), 1)]
		}
		row := encode(slot)
		if used[slot.Namespace]+len(row) > share {
			left++
			continue
		}
		used[slot.Namespace] += len(row)
		rows[slot.Namespace+"/"+slot.Slot] = row
	}
	return rows, left
}

// shareOf returns the number of bytes that each namespace may have. A large namespace gets only the
// bytes that smaller namespaces do not need.
func shareOf(sizes map[string]int) int {
	left := maxState
	all := make([]int, 0, len(sizes))
	for _, size := range sizes {
		all = append(all, size)
	}
	slices.Sort(all)
	for i, size := range all {
		if share := left / (len(all) - i); size > share {
			return share
		}
		left -= size
	}
	return maxState
}

// encode returns the JSON of a slot. A slot that cannot be encoded becomes a row that says so.
func encode(slot view.Slot) json.RawMessage {
	if slot.Holder != nil {
		holder := *slot.Holder
		holder.Renewed = nil // otherwise each renewal would count as a change of the slot
		slot.Holder = &holder
	}
	key := slot.Namespace + "/" + slot.Slot
	text, err := json.Marshal(shown{slot, key, slot.Group(), slot.Healthy()})
	if err == nil {
		return text
	}
	without := view.Slot{
		Namespace: slot.Namespace, Slot: slot.Slot, Kind: slot.Kind, Holder: &view.Holder{Pod: unreadable, Identity: unreadable},
		Standbys: []*view.Standby{}, Handovers: []view.Handover{},
	}
	if text, err = json.Marshal(shown{without, key, without.Group(), false}); err != nil {
		return json.RawMessage("{}") // never happens, because texts alone can always be encoded
	}
	return text
}

// sentences returns the trouble, and a sentence about slots that are left out.
func sentences(trouble string, left int) string {
	if left == 0 {
		return trouble
	}
	if trouble != "" {
		trouble += " "
	}
	return trouble + fmt.Sprintf("Slots that are not shown, because their namespace has too many or too large ones: %d.", left)
}
