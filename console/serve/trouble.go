// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"encoding/json"
	"fmt"
	"time"
)

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
