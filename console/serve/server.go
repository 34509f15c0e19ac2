// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/console/view"
)

const (
	// maxStreams bounds the streams of all browsers. A console serves a few people, with a few
	// tabs each.
	maxStreams = 32
	// maxQueue bounds the messages that wait for a slow reader. A message is shared by all
	// streams, so a queue is cheap.
	maxQueue = 32
	// alive is the time between two messages of an idle stream. The page doubts the
	// connection after three of them.
	alive = 10 * time.Second
	// writeTimeout bounds one write to a reader.
	writeTimeout = 10 * time.Second
)

// Server keeps the state of all slots for its streams.
type Server struct {
	// Docs serves the documentation below /docs/, if present.
	Docs http.Handler
	// Now is the clock of the server, for the ages on the page.
	Now func() time.Time

	mu sync.Mutex
	// slots has each slot's JSON, by key. The map is nil before the first publication.
	slots map[string]json.RawMessage
	// trouble is the sentence about a failing watch; empty if all is well.
	trouble string
	number  uint64
	streams map[*stream]bool
}

// stream is the connection of one browser.
type stream struct {
	// queue has the messages to write. The server closes the queue of a slow reader.
	queue chan []byte
}

// shown is a slot, as the page gets it.
type shown struct {
	view.Slot

	Key     string `json:"key"`
	Group   string `json:"group"`
	Healthy bool   `json:"healthy"`
}

// state is the first message of a stream.
type state struct {
	Now     time.Time         `json:"now"`
	Docs    bool              `json:"docs"`
	Trouble string            `json:"trouble"`
	Slots   []json.RawMessage `json:"slots"`
}

// change is a later message of a stream.
type change struct {
	Now     time.Time         `json:"now"`
	Trouble string            `json:"trouble"`
	Slots   []json.RawMessage `json:"slots,omitempty"`
	Gone    []string          `json:"gone,omitempty"`
}

// New returns a server without slots. The streams wait for the first publication.
func New() *Server {
	return &Server{Now: time.Now, streams: map[*stream]bool{}}
}

// Publish shows the slots, and nothing else. The argument trouble says why the slots may be old; empty if
// they are not. Streams get the differences only.
func (s *Server) Publish(slots []view.Slot, trouble string) error {
	now := make(map[string]json.RawMessage, len(slots))
	for _, slot := range slots {
		key := slot.Namespace + "/" + slot.Slot
		if slot.Holder != nil {
			holder := *slot.Holder
			holder.Renewed = nil // a renewal is no change
			slot.Holder = &holder
		}
		text, err := json.Marshal(shown{slot, key, slot.Group(), slot.Healthy()})
		if err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
		now[key] = text
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.slots == nil
	before := s.slots
	c := change{Now: s.Now(), Trouble: trouble}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if !bytes.Equal(before[key], now[key]) {
			c.Slots = append(c.Slots, now[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if now[key] == nil {
			c.Gone = append(c.Gone, key)
		}
	}
	if !first && len(c.Slots)+len(c.Gone) == 0 && trouble == s.trouble {
		return nil
	}
	s.slots, s.trouble = now, trouble
	s.number++
	if first {
		return s.send(s.whole())
	}
	return s.send(s.message("change", c))
}

// whole returns the message with the state of all slots. The caller holds the mutex.
func (s *Server) whole() ([]byte, error) {
	all := state{Now: s.Now(), Docs: s.Docs != nil, Trouble: s.trouble, Slots: []json.RawMessage{}}
	for _, key := range slices.Sorted(maps.Keys(s.slots)) {
		all.Slots = append(all.Slots, s.slots[key])
	}
	return s.message("state", all)
}

// message returns an event of a stream. Encoded JSON contains no line feed, so one line of data is
// enough.
func (s *Server) message(name string, data any) ([]byte, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	return fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", s.number, name, text), nil
}

// send queues a message for each stream, and drops the streams whose queue is full. The caller
// holds the mutex.
func (s *Server) send(message []byte, err error) error {
	if err != nil {
		return err
	}
	for one := range s.streams {
		select {
		case one.queue <- message:
		default:
			close(one.queue)
			delete(s.streams, one)
		}
	}
	return nil
}

// join adds a stream, whose first message is the whole state. Without a free place the result is
// nil.
func (s *Server) join() (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) >= maxStreams {
		return nil, nil
	}
	one := &stream{queue: make(chan []byte, maxQueue)}
	if s.slots != nil {
		message, err := s.whole()
		if err != nil {
			return nil, err
		}
		one.queue <- message
	}
	s.streams[one] = true
	return one, nil
}

// leave removes a stream.
func (s *Server) leave(one *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, one)
}
