// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// holdings is the answer about the holds of several claims, in the order of acquisition. The answer
// is good until one of the holds ends.
type holdings struct {
	Holds          []holding `json:"holds"`
	GoodForSeconds float64   `json:"goodForSeconds"`
	GoodUntil      float64   `json:"goodUntil"`
}

// member is one claim of a call for several claims. The field "hold" is nil before the claim
// is held.
type member struct {
	calls
	writes bool
	hold   *hold
}

// several is a call for several claims. The call gets a hold of each claim, or no hold.
type several struct {
	members []member
	// wait bounds the whole call. The field "every" is the longest time between two heartbeats of
	// one hold.
	wait, every time.Duration
}

// postHolds bids for several claims. The answer contains a hold of each claim.
func (a *API) postHolds(w http.ResponseWriter, r *http.Request) {
	s, problem := a.several(r.URL.Query())
	switch {
	case problem != nil:
		problem.write(w)
	case s.wait > 0:
		takeOver(w, r, s.answer)
	default:
		s.answer(r.Context(), w)
	}
}

// The method "answer" bids for the claims, and answers with the holds.
func (s several) answer(ctx context.Context, w http.ResponseWriter) {
	problem := s.acquire(ctx)
	var answer holdings
	if problem == nil {
		answer, problem = s.tell()
	}
	switch {
	case problem != nil:
		s.giveBack()
		problem.write(w)
	case ctx.Err() != nil:
		s.giveBack() // the program never learns of the holds
		lostProblem.write(w)
	default:
		reply(w, http.StatusCreated, answer)
		if isUntold(w) {
			s.giveBack()
		}
	}
}

// several returns the call that the query describes: a call for holds of several claims. Each such
// call gets its holds in the alphabetical order of the claims (KIND/NAME), so that no two calls
// wait for each other.
func (a *API) several(query url.Values) (several, *problem) {
	wait, every, problem := timesOf(query)
	if problem != nil {
		return several{}, problem
	}
	s := several{wait: wait, every: every}
	names := strings.Split(query.Get("claims"), ",")
	slices.Sort(names)
	if slices.Contains(names, "") || len(slices.Compact(slices.Clone(names))) < len(names) {
		return s, usageProblem("Write the claims once each, as in ?claims=lock/a,lock/b.")
	}
	as := query.Get("as")
	for _, text := range names {
		word, name, _ := strings.Cut(text, "/")
		k := a.keeper(word, name)
		switch {
		case word == api.Variable.Word:
			return s, usageProblem("No pod holds a Variable. Leave it out of ?claims.")
		case word == api.Arrivals.Word:
			return s, usageProblem("No pod holds a barrier. Wait there with POST /v1/barrier/NAME/wait.")
		case k == nil:
			return s, undeclaredProblem(word, name)
		}
		m := member{calls: calls{k}}
		if k.of.Kind == api.RWLock {
			if m.writes, problem = writesAs(k.of, as); problem != nil {
				return s, problem
			}
		}
		s.members = append(s.members, m)
	}
	if as != "" && !slices.ContainsFunc(s.members, func(m member) bool { return m.of.Kind == api.RWLock }) {
		return s, usageProblem("Only a read-write lock (rwlock) takes ?as. Leave it out.")
	}
	return s, nil
}

// acquire gets a hold of each claim, one after the other. The open call shows that the program
// lives. If a hold of the call ends before the last claim is held, the call ends. The call also
// ends if a person requests that the program gives such a hold back. A Lease of a dead holder
// expires only after the agent has seen the Lease unchanged for the lease duration. So during a
// call with a wait the agent watches the Leases of all claims from the beginning.
func (s several) acquire(ctx context.Context) *problem {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	until := time.Now().Add(s.wait)
	if s.wait > 0 {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, max(s.wait, s.members[0].patience()))
		defer end()
		for _, m := range s.members[1:] {
			defer m.watch()()
		}
	}
	for i := range s.members {
		m := &s.members[i]
		wait := max(time.Until(until), 0)
		o := m.bidFor(ctx, &bid{now: wait == 0, stream: true, writes: m.writes}, wait)
		switch {
		case o.problem == nil:
			m.hold = o.hold
			go m.guard(ctx, cancel)
		case errors.Is(context.Cause(ctx), errEnds):
			return lostProblem
		default:
			return o.problem
		}
	}
	return nil
}

// guard ends the call, which still waits for another claim, if the call's hold of this claim has
// ended. The call also ends if a person requests that the program gives that hold back.
func (m member) guard(ctx context.Context, end func(error)) {
	for {
		line, changed, ok := m.lineOf(ctx, m.hold)
		switch {
		case !ok:
			return
		case line.State == asked || line.State == lost:
			end(errEnds)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-m.ended:
			return
		}
	}
}

// tell returns the answer about all holds. From now on the program must send heartbeats for each
// hold, or follow the hold by a stream.
func (s several) tell() (answer holdings, problem *problem) {
	for i, m := range s.members {
		line, has := m.leave(s.every)
		if !has {
			return holdings{}, lostProblem
		}
		answer.Holds = append(answer.Holds, line)
		if i == 0 || line.GoodUntil < answer.GoodUntil {
			answer.GoodForSeconds, answer.GoodUntil = line.GoodForSeconds, line.GoodUntil
		}
	}
	return answer, nil
}

// leave no longer counts the connection of the call, which has shown so far that the program
// lives. From now on, heartbeats or a stream must show that. If the hold has ended, the second
// result is false.
func (m member) leave(every time.Duration) (answer holding, has bool) {
	_ = m.call(context.Background(), func(now time.Duration) {
		if h := m.hold; h.phase(now) != lost {
			h.streams--
			h.expect(now, every)
			m.tie(true)
			answer, has = newHolding(m.of, h, now), true
		}
	})
	return answer, has
}

// giveBack gives back all holds of the call, the last one first. No program knows these holds.
func (s several) giveBack() {
	for _, m := range slices.Backward(s.members) {
		if m.hold != nil {
			_ = m.calls.giveBack(context.Background(), m.hold.number)
		}
	}
}
