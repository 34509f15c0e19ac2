// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package serve shows slots to browsers: a page, and a stream of server-sent events.
//
// Each stream begins with the state of all slots. Afterwards the stream has the slots that changed.
// A browser that connects again gets the whole state again, so no change is missed. The number of
// streams is bounded, and so is the queue of each stream. A browser that does not keep up is
// dropped, and connects again. The bytes of all slots are bounded, and each namespace has a share
// of them. From a namespace that exceeds its share, the page omits first the earlier handovers, and
// then whole slots. A sentence on the page has the number of omitted slots.
//
// The handler authenticates nobody. The caller listens on the loopback of a pod, and the API server
// decides on each port-forward. The handler answers only requests for a loopback name. So no page
// of another site reads the stream under a name of its own (DNS rebinding).
//
// The page does not guarantee that the shown slots are current. The page shows the slots of the
// caller's last publication.
package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metaparticle-io/metaparticle/console/view"
)

const (
	// maxStreams bounds the streams of all browsers. A console serves a few people, with a few
	// tabs each.
	maxStreams = 32
	// maxQueue bounds the messages that wait for a slow browser. A message is shared by all
	// streams, so a queue is cheap.
	maxQueue = 32
	// maxWaiting bounds the bytes of the messages that wait for a slow browser: twice the bound of
	// the rows of all slots.
	maxWaiting = 2 * maxState
	// alive is the time between two messages of an idle stream. After three missing messages and
	// five seconds, the page reports a lost connection.
	alive = 10 * time.Second
	// maxChunk bounds the bytes of one write to a browser, and writeTimeout bounds the time of one
	// write. So even a slow link gets a large state, by many writes.
	maxChunk     = 64 << 10
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
	// encoded has the JSON of all slots together; nil until a stream needs the text.
	encoded []byte
	// trouble has the sentences about failing watches and omitted slots; empty if all is well.
	trouble string
	// left is the number of slots that are not shown.
	left   int
	number uint64
	// streams has each stream until its handler ends.
	streams map[*stream]bool
}

// stream is the connection of one browser.
type stream struct {
	queue chan message
	// waiting is the number of bytes in the queue.
	waiting atomic.Int64
	// drop ends the handler of the stream.
	drop func()
}

// message is an event of a stream. Several streams share the parts of one message.
type message [][]byte

func (m message) size() (n int64) {
	for _, part := range m {
		n += int64(len(part))
	}
	return n
}

// head begins the first message of a stream. The slots follow.
type head struct {
	Now     time.Time `json:"now"`
	Docs    bool      `json:"docs"`
	Trouble string    `json:"trouble"`
}

// change is a message that follows the first message of a stream.
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

// Publish replaces all slots that are shown. The argument "trouble" says why the slots may be old,
// and is empty if the slots are not old. Streams get only the differences.
func (s *Server) Publish(slots []view.Slot, trouble string) error {
	now, left := rowsOf(slots)
	trouble = sentences(trouble, left)
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
	s.slots, s.encoded, s.trouble, s.left = now, nil, trouble, left
	s.number++
	if first {
		return s.send(s.whole())
	}
	return s.send(s.changed(c))
}

// changed returns the message of a change. The caller holds the mutex.
func (s *Server) changed(c change) (message, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode change: %w", err)
	}
	return message{fmt.Appendf(nil, "id: %d\nevent: change\ndata: %s\n\n", s.number, text)}, nil
}

// whole returns the message with the state of all slots. Streams that join before the next change
// share the encoded slots. Encoded JSON contains no line feed, so one line of data is enough. The
// caller holds the mutex.
func (s *Server) whole() (message, error) {
	begin, err := json.Marshal(head{Now: s.Now(), Docs: s.Docs != nil, Trouble: s.trouble})
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	if s.encoded == nil {
		var all [][]byte
		for _, key := range slices.Sorted(maps.Keys(s.slots)) {
			all = append(all, s.slots[key])
		}
		s.encoded = slices.Concat([]byte(`,"slots":[`), bytes.Join(all, []byte(",")), []byte("]}\n\n"))
	}
	return message{fmt.Appendf(nil, "id: %d\nevent: state\ndata: %s", s.number, bytes.TrimSuffix(begin, []byte("}"))), s.encoded}, nil
}

// send queues a message for each stream, and drops the streams whose queue is full. If the argument
// "err" is not nil, send only returns that error. The caller holds the mutex.
func (s *Server) send(m message, err error) error {
	if err != nil {
		return err
	}
	for one := range s.streams {
		if !one.add(m) {
			one.drop()
		}
	}
	return nil
}

// add queues a message, and reports whether the queue had room.
func (one *stream) add(m message) bool {
	if one.waiting.Load()+m.size() > maxWaiting {
		return false
	}
	select {
	case one.queue <- m:
		one.waiting.Add(m.size())
		return true
	default:
		return false
	}
}

// join adds a stream, whose first message is the whole state. If all places are taken, the result
// is nil. A stream keeps its place until [Server.leave], even after it was dropped, because its
// handler may still write.
func (s *Server) join(drop func()) (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) >= maxStreams {
		return nil, nil
	}
	one := &stream{queue: make(chan message, maxQueue), drop: drop}
	if s.slots != nil {
		m, err := s.whole()
		if err != nil {
			return nil, err
		}
		one.add(m)
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

// sign is the message of an idle stream.
type sign struct {
	Now     time.Time `json:"now"`
	Trouble string    `json:"trouble"`
}

// Warn tells the streams why the slots may be old. With an empty argument, Warn tells that the
// slots are not old. Warn changes no slot. Streams get the warning even before the first state.
func (s *Server) Warn(trouble string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	trouble = sentences(trouble, s.left)
	if trouble == s.trouble {
		return nil
	}
	s.trouble = trouble
	if s.slots == nil {
		return s.send(s.sign())
	}
	s.number++
	return s.send(s.changed(change{Now: s.Now(), Trouble: trouble}))
}

// alive returns the message by which a browser sees that its connection still works. Each stream
// sends this message even while no slot changes.
func (s *Server) alive() message {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.sign()
	if err != nil {
		return nil
	}
	return m
}

// sign encodes the message of an idle stream. The message has no id, because no state belongs to
// it. The caller holds the mutex.
func (s *Server) sign() (message, error) {
	text, err := json.Marshal(sign{s.Now(), s.trouble})
	if err != nil {
		return nil, fmt.Errorf("encode alive: %w", err)
	}
	return message{fmt.Appendf(nil, "event: alive\ndata: %s\n\n", text)}, nil
}
