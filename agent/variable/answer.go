// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// These constants are the pauses between attempts. The pause after a conflict keeps the pods from
// colliding again. The pause after an error spares the API server.
const (
	shortestPause = 2 * time.Millisecond
	longestPause  = 250 * time.Millisecond
	errorPause    = 2 * time.Second
)

// Run carries out actions until stop is closed, or ctx ends. If a write is under way when stop
// is closed, Run first waits for its outcome.
func (v *Variable) Run(ctx context.Context, stop <-chan struct{}) {
	defer v.tasks.wait()
	defer close(v.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-stop:
			return
		case first := <-v.calls:
			v.answer(ctx, v.gather(first))
		}
	}
}

// gather returns the calls that one write is to carry out. The argument "first" is the first of
// them. While the last call is an add, gather appends the next waiting call, up to mostAtOnce
// calls.
func (v *Variable) gather(first *call) []*call {
	all := []*call{first}
	for all[len(all)-1].adds() && len(all) < mostAtOnce {
		select {
		case next := <-v.calls:
			all = append(all, next)
			continue
		default:
		}
		break
	}
	return all
}

// answer sends the answers to the calls. One write carries out all those calls that change the Variable.
func (v *Variable) answer(ctx context.Context, calls []*call) {
	for attempt := 0; ; attempt++ {
		if ctx.Err() != nil {
			refuse(calls, Unavailable)
			return
		}
		if calls = expire(calls, Unavailable); len(calls) == 0 {
			return
		}
		base, err := v.base(ctx)
		if err != nil {
			if errors.Is(err, kube.ErrNotFound) {
				refuse(calls, Absent)
				return
			}
			v.config.Log.Debug("variable not read", "variable", v.config.Name, "err", err)
			v.pause(ctx, attempt, errorPause)
			continue
		}
		if calls = confirm(calls, base); len(calls) == 0 {
			return
		}
		fresh := v.known == nil
		next := base.Clone()
		changing, unchanged, rest := v.try(calls, base, next)
		if !fresh && len(unchanged) > 0 {
			v.known = nil // an answer without a write must come from a fresh read
			continue
		}
		for _, c := range calls { // the answers keep the order of the calls, so that a simulation can be replayed
			if answer, ok := unchanged[c]; ok {
				c.answer <- answer
			}
		}
		if len(changing) == 0 {
			// The result "rest" has only calls that come after a changing call. So "rest" is
			// empty, too, and all calls are answered.
			return
		}
		v.writes++
		next.Write = v.config.PodUID + "." + v.config.Process + "." + strconv.Itoa(v.writes)
		open, refused := v.write(ctx, changing, base, next)
		calls = slices.Concat(open, rest)
		switch {
		case len(open) == 0:
			attempt = -1
		case refused:
			v.pause(ctx, attempt+5, errorPause)
		default:
			v.pause(ctx, attempt, longestPause)
		}
	}
}

// base returns the state that the next write replaces.
func (v *Variable) base(ctx context.Context) (*kube.Variable, error) {
	if v.known != nil {
		return v.known, nil
	}
	return source{v.config}.read(ctx)
}

// try applies the actions of the calls, one after the other, to the argument "next", a copy of the
// stored state "base". The result "changing" has the calls that change this state. The result
// "unchanged" has answers to calls that change nothing. Such an answer must not depend on a write that
// is not stored yet. So a call that changes nothing, but comes after a call in "changing", is in the
// result "rest" instead. The same holds for a call whose key base has, because the earlier calls may
// have dropped that key. The policy on Variables refuses a write that replaces the record of a key.
func (v *Variable) try(calls []*call, base, next *kube.Variable) (changing []*call, unchanged map[*call]Answer, rest []*call) {
	unchanged = map[*call]Answer{}
	for _, c := range calls {
		version := next.ResourceVersion
		if len(changing) > 0 {
			if _, kept := keptKey(base, c.Key); kept && c.Key != "" {
				rest = append(rest, c)
				continue
			}
			version = "" // the write of the earlier calls causes a resourceVersion that is not known yet
		}
		result, changed, refusal := c.apply(next, v.config.PodUID, version)
		switch {
		case changed:
			c.result = result
			changing = append(changing, c)
		case len(changing) > 0:
			rest = append(rest, c)
		default:
			unchanged[c] = Answer{Refusal: refusal, Result: result}
		}
	}
	return changing, unchanged, rest
}

// write sends the write that replaces base by next, and answers the calls. If the outcome cannot be
// proven, the answer is the refusal [Unknown]. Only the calls in the result "open" get no answer.
// For these calls this write will store nothing from now on. Also, this write has stored nothing,
// unless write marks the calls with a conflict. The result "refused" reports that the API server
// refused the write for another reason than a conflict.
func (v *Variable) write(ctx context.Context, calls []*call, base, next *kube.Variable) (open []*call, refused bool) {
	v.known = nil
	maybeStored := false // true after an attempt without an answer: its write may be stored now or later
	for attempt := 0; ; attempt++ {
		stored, err := v.put(ctx, next)
		switch {
		case err == nil:
			v.known = stored
			accept(calls, stored, stored)
			return nil, false
		case kube.Refused(err) && !maybeStored:
			v.config.Log.Debug("variable not written", "variable", v.config.Name, "err", err)
			if !errors.Is(err, kube.ErrConflict) {
				return calls, true
			}
			for _, c := range calls {
				c.conflict = &conflict{base: base, next: next}
			}
			return calls, false
		}
		maybeStored = true
		there := v.look(ctx, calls)
		if there == nil {
			refuse(calls, Unknown)
			return nil, false
		}
		switch proof(base, next, there) {
		case isStored:
			v.known = there
			accept(calls, next, there)
			return nil, false
		case isLost:
			return calls, false
		case isDoubtful:
			refuse(calls, Unknown)
			return nil, false
		case isOpen: // the Variable is as before, so the loop sends the same write again
		}
		if calls = expire(calls, Unknown); len(calls) == 0 {
			return nil, false
		}
		v.pause(ctx, attempt+3, errorPause)
	}
}

// confirm answers each call whose last write ended with a conflict, but was stored. A proxy may have
// repeated the stored PUT, so that the second PUT caused the conflict. The argument "there" is a
// state that was read after the conflict. The result has the other calls.
func confirm(calls []*call, there *kube.Variable) (open []*call) {
	for _, c := range calls {
		last := c.conflict
		c.conflict = nil
		if last != nil && proof(last.base, last.next, there) == isStored {
			accept([]*call{c}, last.next, there)
			continue
		}
		open = append(open, c)
	}
	return open
}

func (v *Variable) put(ctx context.Context, next *kube.Variable) (*kube.Variable, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return v.config.Requests.UpdateVariable(ctx, next)
}

// look reads the Variable after a write without an answer. If a read fails, look tries again, as
// long as a call still waits. The result is nil if all these reads fail. If the Variable is gone,
// look immediately returns nil.
func (v *Variable) look(ctx context.Context, calls []*call) *kube.Variable {
	for attempt := 0; ; attempt++ {
		there, err := source{v.config}.read(ctx)
		if err == nil {
			return there
		}
		if errors.Is(err, kube.ErrNotFound) || ctx.Err() != nil || !slices.ContainsFunc(calls, func(c *call) bool { return !c.over() }) {
			return nil
		}
		v.pause(ctx, attempt, errorPause)
	}
}

// verdict is the outcome of a write without an answer, as far as a later read proves it.
type verdict int

const (
	// isOpen means that the write may still be stored.
	isOpen verdict = iota
	// isStored means that the write was stored. isLost means that the write was not stored and
	// never will be.
	isStored
	isLost
	// isDoubtful means that the write will not be stored from now on, but may have been stored
	// before.
	isDoubtful
)

// proof returns what a later state of the Variable proves about the write that replaces base by
// next. The argument "there" is that later state.
func proof(base, next, there *kube.Variable) verdict {
	switch {
	case there.UID != base.UID:
		return isDoubtful
	case there.Write == next.Write:
		return isStored
	case there.ResourceVersion == base.ResourceVersion:
		return isOpen
	case next.Keyed == base.Keyed:
		return isDoubtful
	}
	newest := next.Keys[len(next.Keys)-1]
	if k, ok := keptKey(there, newest.Key); ok && k == newest {
		return isStored
	}
	if keepsNewest(there, base.Keyed) {
		return isLost
	}
	return isDoubtful
}

// accept answers all calls that the stored write "next" has carried out. The argument "there" is a
// state that proves that write. If another write has replaced the write's own state, the version of
// that own state is not known. A call that needs this version gets the refusal [Unknown]. With the
// version of the other write, the program would overwrite a value that the program has not seen.
func accept(calls []*call, next, there *kube.Variable) {
	for _, c := range calls {
		switch {
		case c.adds():
			c.answer <- Answer{Result: c.result}
		case next.Write == there.Write:
			c.answer <- Answer{State: there}
		default:
			c.answer <- Answer{Refusal: Unknown}
		}
	}
}

func refuse(calls []*call, refusal Refusal) {
	for _, c := range calls {
		c.refuse(refusal)
	}
}

// expire returns the calls whose program still waits. Each other call gets the refusal as its
// answer.
func expire(calls []*call, refusal Refusal) []*call {
	return slices.DeleteFunc(calls, func(c *call) bool {
		over := c.over() // called only once, because a second call may return another result
		if over {
			c.refuse(refusal)
		}
		return over
	})
}

// pause waits for a random time, whose bound grows with the number of attempts.
func (v *Variable) pause(ctx context.Context, attempt int, longest time.Duration) {
	bound := min(shortestPause<<min(attempt, 12), longest)
	timer := time.NewTimer(time.Duration(v.random.Int64N(int64(bound))) + bound/4)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
