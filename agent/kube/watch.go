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

// WatchType is the type of a [WatchEvent].
type WatchType string

const (
	Added    WatchType = "ADDED"
	Modified WatchType = "MODIFIED"
	Deleted  WatchType = "DELETED"
	// Bookmark has a resourceVersion from which a watch can resume, and no Lease.
	Bookmark WatchType = "BOOKMARK"

	// failed is the event of an error, which ends the watch with a [*StatusError].
	failed WatchType = "ERROR"
)

// WatchEvent is one event of a watch.
type WatchEvent struct {
	Type WatchType
	// Lease is the object after the event; for a deleted object, its last state. A Bookmark has
	// no Lease.
	Lease *Lease
	// ResourceVersion is the resourceVersion from which a later watch resumes after this event.
	ResourceVersion string
}

// A watch of the client lasts between watchMin and watchMin+watchSpread. If a client requests no
// timeout, the API server ends a watch after 30 to 60 minutes. With long watches a standby sends
// almost nothing. A watch must end, because the API server checks the right to watch only at the
// start of a watch. The spread keeps watches that began together from ending together.
const (
	watchMin    = 6 * time.Hour
	watchSpread = 6 * time.Hour
)

// WatchLease calls fn with each event of the Lease after resourceVersion, oldest first, until the
// watch ends. Without a resourceVersion the watch starts with an event for the present Lease, if
// it exists. If the server ends the watch without an error, WatchLease returns nil, and the
// caller resumes from the last ResourceVersion. [ErrGone] means that the resourceVersion is too
// old: the caller must read the Lease, and watch from its resourceVersion. While a watch is
// silent, WatchLease does not return.
func (c *Client) WatchLease(ctx context.Context, name, resourceVersion string, fn func(WatchEvent)) error {
	err := c.watch(ctx, c.leasesPath(), name, resourceVersion, leaseEvents(name, fn))
	if err != nil {
		return fmt.Errorf("watch lease %s: %w", name, err)
	}
	return nil
}

// leaseEvents returns a function that passes each frame of a watch to fn, as an event of the Lease
// with the given name. An event of another Lease is an error.
func leaseEvents(name string, fn func(WatchEvent)) func(kind WatchType, object []byte) error {
	return func(kind WatchType, object []byte) error {
		event, err := decodeEvent(kind, object)
		if err != nil {
			return err
		}
		if event.Lease != nil && event.Lease.Name != name {
			return fmt.Errorf("%w: event of lease %q", ErrMalformed, event.Lease.Name)
		}
		fn(event)
		return nil
	}
}

// watch watches one object of a collection, and passes each frame to the function "take". An error
// of that function ends the watch.
func (c *Client) watch(ctx context.Context, collection, name, resourceVersion string, take func(kind WatchType, object []byte) error) error {
	// The API server cannot watch one object, only a collection with a selector.
	// A Role that names the object allows exactly this selector.
	response, err := c.send(ctx, request{
		method: http.MethodGet,
		path:   collection,
		query: url.Values{
			"watch":               {"1"},
			"fieldSelector":       {"metadata.name=" + name},
			"resourceVersion":     {resourceVersion},
			"allowWatchBookmarks": {"true"},
			"timeoutSeconds":      {strconv.Itoa(int((watchMin + rand.N(watchSpread)).Seconds()))},
		},
	})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := readWatch(response.Body, take); err != nil {
		return err
	}
	// Once the client has cancelled the watch, the server may end the stream without an error. Then
	// the error of ctx tells the caller of the cancellation.
	return ctx.Err()
}

// readWatch decodes frames, and passes each frame to the function "take", until the stream ends, or
// until "take" returns an error. An end within a frame is an error, because the event of that frame
// is lost.
func readWatch(body io.Reader, take func(kind WatchType, object []byte) error) error {
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
		if err := take(frame.Type, frame.Object); err != nil {
			return err
		}
	}
}

// decodeEvent decodes one frame into an event, or into the error of an ERROR
// frame.
func decodeEvent(kind WatchType, object []byte) (WatchEvent, error) {
	event := WatchEvent{Type: kind}
	if kind != Added && kind != Modified && kind != Deleted {
		var err error
		event.ResourceVersion, err = decodeBookmark(kind, object)
		return event, err
	}
	lease, err := decodeLease(object)
	if err != nil {
		return event, err
	}
	event.Lease, event.ResourceVersion = lease, lease.ResourceVersion
	return event, nil
}

// decodeBookmark returns the resourceVersion in a BOOKMARK frame, or the error of an ERROR frame.
func decodeBookmark(kind WatchType, object []byte) (string, error) {
	if kind == Bookmark {
		var bookmark struct {
			Metadata struct {
				ResourceVersion string `json:"resourceVersion"`
			} `json:"metadata"`
		}
		err := json.Unmarshal(object, &bookmark)
		if err != nil || bookmark.Metadata.ResourceVersion == "" {
			return "", fmt.Errorf("%w: bookmark without resource version", ErrMalformed)
		}
		return bookmark.Metadata.ResourceVersion, nil
	}
	if kind == failed {
		return "", decodeStatus(object)
	}
	return "", fmt.Errorf("%w: event of type %.20q", ErrMalformed, string(kind))
}

// boundedReader bounds the bytes of one frame.
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
