// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"net/http"
)

// barrierState is the answer about a barrier.
type barrierState struct {
	Barrier string  `json:"barrier"`
	State   passage `json:"state"`
}

// passage is the state of a barrier.
type passage string

const (
	// isOpened means that the barrier lets each pod of the run go on, for ever.
	isOpened passage = "open"
	// isClosed means that the Lease does not record yet that the barrier is open.
	isClosed passage = "closed"
)

// withBarrier returns a handler that finds the barrier in the path, and passes that barrier to
// the function "handle".
func (a *API) withBarrier(handle func(*arrival, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		for _, b := range a.arrivals {
			if b.of.Name == name {
				handle(b, w, r)
				return
			}
		}
		undeclaredProblem("barrier", name).write(w)
	}
}

// getBarrier answers with the state of the barrier. This call does not count as a wait at the
// barrier.
func getBarrier(b *arrival, w http.ResponseWriter, r *http.Request) {
	watch, problem := flagOf(r.URL.Query().Get("watch"), "watch")
	if watch {
		problem = usageProblem("A barrier has no ?watch. Wait with POST /v1/barrier/NAME/wait?wait=1m.")
	}
	state := barrierState{Barrier: "barrier/" + b.of.String(), State: isClosed}
	if problem == nil {
		var open bool
		if open, problem = b.look(r.Context()); open {
			state.State = isOpened
		}
	}
	if problem != nil {
		problem.write(w)
		return
	}
	reply(w, http.StatusOK, state)
}

// postWait answers once the barrier is open, or at the end of the time in ?wait. During this wait
// the pod counts at the barrier. Without ?wait, postWait only reads whether the barrier is open.
func postWait(b *arrival, w http.ResponseWriter, r *http.Request) {
	wait, problem := seconds(r.URL.Query().Get("wait"), 0, "wait")
	switch {
	case problem != nil:
	case wait > 0:
		takeOver(w, r, func(ctx context.Context, w http.ResponseWriter) {
			ctx, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			b.replyWait(w, b.wait(ctx))
		})
		return
	default:
		var open bool
		if open, problem = b.look(r.Context()); !open {
			problem = cmp.Or(problem, closedProblem)
		}
	}
	b.replyWait(w, problem)
}

// replyWait answers that the barrier is open, or with the problem.
func (b *arrival) replyWait(w http.ResponseWriter, problem *problem) {
	if problem != nil {
		problem.write(w)
		return
	}
	reply(w, http.StatusOK, barrierState{Barrier: "barrier/" + b.of.String(), State: isOpened})
}
