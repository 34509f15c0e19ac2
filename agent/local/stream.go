// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// lineTimeout bounds the writing of one line of a stream. A program that does not read does
// not show that it lives.
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

// line writes one line.
func (s stream) line(of any) error {
	// An error means that the connection knows no deadlines, as in tests.
	_ = s.to.SetWriteDeadline(time.Now().Add(lineTimeout))
	if err := s.encoder.Encode(of); err != nil {
		return err
	}
	return s.to.Flush()
}

// followHold lets a program follow a hold that it has already.
func followHold(k *keeper, w http.ResponseWriter, r *http.Request) {
	has, err := k.attach(r.Context(), r.PathValue("hold"))
	switch {
	case err != nil:
		stoppingProblem.write(w)
	case has == nil:
		lostProblem.write(w)
	default:
		k.follow(w, r, has)
	}
}

// follow writes a line at each change of the hold, until the hold or the connection ends. The
// open connection shows that the program lives.
func (k *keeper) follow(w http.ResponseWriter, r *http.Request, h *hold) {
	defer k.detach(h)
	lines := newStream(w)
	var told holding
	for {
		line, changed, ok := k.lineOf(r.Context(), h)
		if !ok {
			return
		}
		if line.State != told.State || line.GoodForSeconds > told.GoodForSeconds || line.State == lost {
			if lines.line(line) != nil || line.State == lost {
				return
			}
		}
		told = line
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-k.ended:
			return
		}
	}
}

// lineOf returns the line about a hold, and the channel that is closed at the next change.
func (k *keeper) lineOf(ctx context.Context, h *hold) (line holding, changed <-chan struct{}, ok bool) {
	err := k.call(ctx, func(now time.Duration) {
		k.quiet = true
		line, changed = k.holding(h, h.phase(now), h.good(now)), k.changed
	})
	return line, changed, err == nil
}
