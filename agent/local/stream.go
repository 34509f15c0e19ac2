// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// followHold streams the state of a hold to the program that already has the hold.
func followHold(k calls, w http.ResponseWriter, r *http.Request) {
	has, err := k.attach(r.Context(), r.PathValue("hold"))
	switch {
	case errors.Is(err, errEnded):
		stoppingProblem.write(w)
	case err != nil:
		unavailableProblem.write(w) // the program has closed at least its half of the connection
	case has == nil:
		lostProblem.write(w)
	default:
		takeOver(w, r, func(ctx context.Context, w http.ResponseWriter) { k.follow(ctx, w, has) })
	}
}

// follow writes a line at each change of the hold, until the hold or the connection ends. While
// the connection is open, the program counts as living.
func (k calls) follow(ctx context.Context, w http.ResponseWriter, h *hold) {
	defer k.detach(h)
	lines := newStream(w)
	var told holding
	for {
		line, changed, ok := k.lineOf(ctx, h)
		if !ok {
			return
		}
		if line.State != told.State || line.GoodUntil > told.GoodUntil || line.State == lost {
			if lines.line(line) != nil || line.State == lost {
				return
			}
		}
		told = line
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-k.ended:
			return
		}
	}
}

// lineOf returns the line about a hold, and the channel that is closed at the next change. The
// result "ok" is false if ctx or the loop ends first.
func (k calls) lineOf(ctx context.Context, h *hold) (line holding, changed <-chan struct{}, ok bool) {
	err := k.call(ctx, func(now time.Duration) {
		k.quiet = true
		line, changed = newHolding(k.of, h, now), k.changed
	})
	return line, changed, err == nil
}
