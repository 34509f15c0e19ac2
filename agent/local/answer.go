// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// holding is the answer about a hold of the program.
type holding struct {
	Claim string `json:"claim"`
	Hold  string `json:"hold"`
	// Slot is the name of the hold's Lease. If the hold has several Leases, Slot is the name of
	// the Lease with the greatest token. FencingToken is a decimal number, which grows from hold
	// to hold.
	Slot         string `json:"slot"`
	FencingToken string `json:"fencingToken"`
	// The field As is the program's mode in a read-write lock; empty for other claims.
	As    mode  `json:"as,omitempty"`
	State phase `json:"state"`
	// GoodForSeconds is the time within which the program must get another good answer, or stop
	// its work. GoodUntil is the end of that time, in seconds of CLOCK_BOOTTIME. Both are zero
	// if the answer is not good.
	GoodForSeconds float64 `json:"goodForSeconds"`
	GoodUntil      float64 `json:"goodUntil"`
}

// newHolding returns the answer about a hold of the claim at the instant now.
func newHolding(of api.Claim, h *hold, now time.Duration) holding {
	answer := holding{Claim: of.LocalText(), Hold: h.number, Slot: h.slot, FencingToken: h.token, State: h.phase(now)}
	if of.Kind == api.RWLock {
		answer.As = h.bid.as()
	}
	if good := h.good(now); good > 0 {
		answer.GoodForSeconds, answer.GoodUntil = good.Seconds(), (now + good).Seconds()
	}
	return answer
}

// reply sends the answer as JSON.
func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // if the write fails, the program is gone
}

// lineTimeout bounds the time to write one line of a stream, or another part of an answer on a
// connection that a handler has taken. The kernel buffers many lines, so the timeout ends a
// connection only if the program has not read for long.
const lineTimeout = 10 * time.Second

// stream writes lines of JSON.
type stream struct {
	to      *http.ResponseController
	encoder *json.Encoder
}

func newStream(w http.ResponseWriter) stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	return stream{to: http.NewResponseController(w), encoder: json.NewEncoder(w)}
}

// line writes the value as one line of JSON.
func (s stream) line(of any) error {
	if err := s.encoder.Encode(of); err != nil {
		return err
	}
	return s.to.Flush()
}
