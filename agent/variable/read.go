// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"errors"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// Get reads the Variable consistently: the answer is at least as new as the call.
func (v *Variable) Get(ctx context.Context) Answer {
	if !v.enter() {
		return Answer{Refusal: TooMany}
	}
	defer v.leave()
	answer := make(chan Answer, 1)
	v.mu.Lock()
	v.reads.next = append(v.reads.next, answer)
	begin := !v.reads.running
	v.reads.running = true
	v.mu.Unlock()
	if begin {
		v.tasks.start(v.readAll)
	}
	select {
	case a := <-answer:
		return a
	case <-ctx.Done():
		return Answer{Refusal: Unavailable}
	case <-v.ended:
		return Answer{Refusal: Stopping}
	}
}

// readAll answers the reads until no read waits.
func (v *Variable) readAll(ctx context.Context) {
	for {
		v.mu.Lock()
		waiting := v.reads.next
		v.reads.next = nil
		v.reads.running = len(waiting) > 0
		v.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		state, err := source{v.config}.read(ctx)
		answer := Answer{State: state}
		if err != nil {
			v.config.Log.Debug("variable not read", "variable", v.config.Name, "err", err)
			answer.Refusal = Unavailable
			if errors.Is(err, kube.ErrNotFound) {
				answer.Refusal = Absent
			}
		}
		for _, to := range waiting {
			to <- answer
		}
	}
}

// Follow calls f with the first state, and with later states from the watch. Of several states in
// quick succession, f may get only the last one. Follow returns an empty refusal when f returns
// false, or when ctx ends. Follow returns [Stopping] when the agent stops, and [Absent] when
// somebody deletes the Variable. If too many calls wait, Follow returns [TooMany] and
// does not call f.
func (v *Variable) Follow(ctx context.Context, first *kube.Variable, f func(*kube.Variable) bool) Refusal {
	if !v.enter() {
		return TooMany
	}
	defer v.leave()
	v.follow.begin(first)
	defer v.follow.end()
	var told *kube.Variable
	for {
		state, gone, changed := v.follow.now()
		switch {
		case gone:
			return Absent
		case told == nil:
			state = first // the caller has read this state, which may be newer than the watch's state
		}
		if state != nil && later(state, told) {
			if !f(state) {
				return ""
			}
			told = state
			continue // the state may have changed meanwhile
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ""
		case <-v.ended:
			return Stopping
		}
	}
}
