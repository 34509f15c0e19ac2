// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// WatchType says what a [WatchEvent] is about.
type WatchType string

const (
	Added    WatchType = "ADDED"
	Modified WatchType = "MODIFIED"
	Deleted  WatchType = "DELETED"
	// Bookmark carries a resourceVersion to resume from and no Lease.
	Bookmark WatchType = "BOOKMARK"

	// failed ends the watch as a [*StatusError].
	failed WatchType = "ERROR"
)

// WatchEvent is one event of a watch.
type WatchEvent struct {
	Type WatchType
	// Lease is the object after the event (for Deleted, its last state); nil
	// for a Bookmark.
	Lease *Lease
	// ResourceVersion is where a later watch resumes so that it begins after
	// this event.
	ResourceVersion string
}

// A watch is asked to last between watchMin and watchMin+watchSpread. The API
// server honours what is asked for; by itself it ends watches after 30 to 60
// minutes, at random. Long, so that a standby sends practically nothing; not
// for ever, because who may watch is checked only when a watch begins; and
// spread, so that those that began together do not end together.
const (
	watchMin    = 6 * time.Hour
	watchSpread = 6 * time.Hour
)

// WatchLease calls fn with each event of the Lease that is later than
// resourceVersion, one after the other, until the watch ends. Without one the watch
// begins now, with an event of the Lease as it is, if there is one. It returns nil
// when the server ended it in good order: the caller resumes from the last
// ResourceVersion that it saw. [ErrGone] means that this is too old: read, and
// watch from there. A watch that fell silent does not return.
func (c *Client) WatchLease(ctx context.Context, name, resourceVersion string, fn func(WatchEvent)) error {
	// The collection with a selector, not the object itself: there is no watch
	// of one object, and a Role that names it allows just this selector.
	response, err := c.send(ctx, request{
		method: http.MethodGet,
		path:   c.leasesPath(),
		query: url.Values{
			"watch":               {"1"},
			"fieldSelector":       {"metadata.name=" + name},
			"resourceVersion":     {resourceVersion},
			"allowWatchBookmarks": {"true"},
			"timeoutSeconds":      {strconv.Itoa(int((watchMin + rand.N(watchSpread)).Seconds()))},
		},
	})
	if err != nil {
		return fmt.Errorf("watch lease %s: %w", name, err)
	}
	defer response.Body.Close()
	err = readWatch(response.Body, name, fn)
	if err == nil {
		// A server that sees us go may still end the stream in good order.
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("watch lease %s: %w", name, err)
	}
	return nil
}

// readWatch decodes frames until the stream ends. Only an end between two
// frames is one in good order.
func readWatch(body io.Reader, name string, fn func(WatchEvent)) error {
	bounded := &boundedReader{from: body}
	decoder := json.NewDecoder(bounded)
	for {
		bounded.left = maxBody
		var frame struct {
			Type   WatchType       `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := decoder.Decode(&frame); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		event, err := decodeEvent(frame.Type, frame.Object)
		if err != nil {
			return err
		}
		if event.Lease != nil && event.Lease.Name != name {
			return fmt.Errorf("%w: event of lease %q", ErrMalformed, event.Lease.Name)
		}
		fn(event)
	}
}

// decodeEvent makes the event of one frame, or the error of an ERROR frame.
func decodeEvent(kind WatchType, object []byte) (WatchEvent, error) {
	event := WatchEvent{Type: kind}
	switch kind {
	case Added, Modified, Deleted:
		lease, err := decodeLease(object)
		if err != nil {
			return event, err
		}
		event.Lease, event.ResourceVersion = lease, lease.ResourceVersion
		return event, nil
	case Bookmark:
		var bookmark struct {
			Metadata struct {
				ResourceVersion string `json:"resourceVersion"`
			} `json:"metadata"`
		}
		err := json.Unmarshal(object, &bookmark)
		event.ResourceVersion = bookmark.Metadata.ResourceVersion
		if err != nil || event.ResourceVersion == "" {
			return event, fmt.Errorf("%w: bookmark without resource version", ErrMalformed)
		}
		return event, nil
	case failed:
		return event, decodeStatus(object)
	}
	return event, fmt.Errorf("%w: event of type %.20q", ErrMalformed, string(kind))
}

// boundedReader bounds what is read for one frame.
type boundedReader struct {
	from io.Reader
	left int
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: a frame above %d bytes", ErrTooLarge, maxBody)
	}
	n, err := b.from.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
