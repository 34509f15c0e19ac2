// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// closedFor is the time after which a closed watch counts as a trouble. The API server ends
	// each watch after some minutes, and client-go opens the next one within a second.
	closedFor = 5 * time.Second
	// silentFor is the time for which the watch of Leases may be open without a byte. The API
	// server sends a bookmark each minute. The watch of Events has no bookmarks, and that of pods
	// may have none on an idle cluster.
	silentFor = 2 * time.Minute
	// steady is the time that a watch must last before the watch counts as open. Otherwise a
	// server that immediately ends each watch would not cause a warning.
	steady = 2 * time.Second
	// bookmarked is the resource whose watch is never silent for long. Each node renews a Lease, so
	// the API server always has a change to report in a bookmark.
	bookmarked = "leases"
)

// links is a transport that records since when each watch is closed or silent. A watch is open from
// the header of its answer until the end of its body. Client-go hides many failures: it repeats a
// refused connection and a 429 without a report.
type links struct {
	next http.RoundTripper
	// changed has a value if the state of a watch may have changed.
	changed chan struct{}

	mu sync.Mutex
	// all has the watch of each resource, by the resource's name.
	all map[string]*link
}

// link is the watch of one resource.
type link struct {
	// bookmarks reports that the API server sends bookmarks on this watch, so an open watch is
	// never silent for long.
	bookmarks bool
	// open counts the open watches of the resource. The next watch may open before the old watch
	// has ended.
	open int
	// closed is the instant at which the last steady watch ended. Before the end of the first
	// steady watch, closed is the instant at which the first request began.
	closed time.Time
	// opened is the instant of the last answer's header, and heard is the instant of the last byte
	// of an answer.
	opened, heard time.Time
}

func newLinks() *links { return &links{changed: make(chan struct{}, 1), all: map[string]*link{}} }

// wrap puts the links in front of a transport.
func (l *links) wrap(next http.RoundTripper) http.RoundTripper {
	l.next = next
	return l
}

// RoundTrip implements [http.RoundTripper].
func (l *links) RoundTrip(r *http.Request) (*http.Response, error) {
	name := path.Base(r.URL.Path)
	l.note(name, func(*link, time.Time) {})
	answer, err := l.next.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusOK || r.URL.Query().Get("watch") == "" {
		return answer, err
	}
	l.note(name, func(one *link, now time.Time) { one.open, one.opened, one.heard = one.open+1, now, now })
	answer.Body = &linked{ReadCloser: answer.Body, links: l, name: name, end: sync.OnceFunc(func() { l.note(name, l.end) })}
	return answer, nil
}

// note calls the function "change" with the link of a watch, and then sends to the channel
// links.changed. From its first request on, a watch counts as closed until the watch has been
// open for the time "steady".
func (l *links) note(name string, change func(one *link, now time.Time)) {
	l.mu.Lock()
	now := time.Now()
	if l.all[name] == nil {
		l.all[name] = &link{bookmarks: name == bookmarked, closed: now}
	}
	change(l.all[name], now)
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// end notes the end of a watch. The field "closed" changes only if the watch was steady, and no
// other watch of the resource is open. A watch that was silent at its end counts as closed since
// its last byte.
func (l *links) end(one *link, now time.Time) {
	if one.open--; one.open > 0 || now.Sub(one.opened) < steady {
		return
	}
	if one.closed = now; one.bookmarks && now.Sub(one.heard) >= silentFor {
		one.closed = one.heard
	}
}

// hear notes that a watch has got a byte. If the watch was silent before, the method also sends to
// the channel links.changed.
func (l *links) hear(name string) {
	l.mu.Lock()
	now, one := time.Now(), l.all[name]
	silent := now.Sub(one.heard) >= silentFor
	one.heard = now
	l.mu.Unlock()
	if silent {
		l.note(name, func(*link, time.Time) {})
	}
}

// trouble returns a text that names the closed and silent watches, and the instant since which the
// first of them is closed or silent. The text is empty if no watch is closed or silent. The result
// "next" is the next instant at which time alone can change the text, or zero.
func (l *links) trouble(now time.Time) (text string, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var since time.Time
	var names []string
	for _, name := range slices.Sorted(maps.Keys(l.all)) {
		one := l.all[name]
		from, until := one.closed, one.closed.Add(closedFor)
		shaky := one.open > 0 && now.Before(one.opened.Add(steady))
		if one.open > 0 && !shaky {
			if !one.bookmarks {
				continue
			}
			from, until = one.heard, one.heard.Add(silentFor)
		}
		if now.Before(until) {
			next = sooner(next, until)
		} else {
			names = append(names, name)
			since = sooner(since, from)
		}
		if shaky {
			next = sooner(next, one.opened.Add(steady))
		}
	}
	if len(names) == 0 {
		return "", next
	}
	return fmt.Sprintf("Since %s the API server sends no changes of %s. What this page shows may be old.",
		since.UTC().Format("15:04:05 UTC"), strings.Join(names, ", ")), next
}

// sooner returns the earlier instant, or b if a is zero.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// linked is the body of a watch. The body reports each byte, and the end of the watch, to the
// links.
type linked struct {
	io.ReadCloser

	links *links
	name  string
	end   func()
}

// Read implements [io.Reader].
func (b *linked) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.links.hear(b.name)
	}
	if err != nil {
		b.end()
	}
	return n, err
}

// Close implements [io.Closer].
func (b *linked) Close() error {
	b.end()
	return b.ReadCloser.Close()
}
