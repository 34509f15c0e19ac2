// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import "time"

const (
	// shortestPause is the time between two questions to the holder's pod. Each question
	// without an answer doubles the pause. Most questions fail only after 2 s, so a shorter
	// pause would save little.
	shortestPause = time.Second
	// longestPause is the delay after which a standby notices that a network path is back.
	longestPause = 10 * time.Second
	// steady is the time for which the holder's pod has to answer until the pauses are
	// short again. A path that comes and goes then changes readiness every 10 s at most.
	steady = time.Minute
)

// target is the pod to which a standby forwards. The agent asks each holder's pod once
// whether it answers, and again after a connection that it did not answer. A question is
// a connection to the application, and an idle standby costs the application nothing.
type target struct {
	address string
	// due: the pod is to be asked, from the instant askAt. asking: a question is under way.
	due, asking bool
	askAt       time.Duration
	// err is the error of the last question. answered: an earlier question had an answer,
	// and each has had one since the instant since.
	err      error
	answered bool
	since    time.Duration
	// misses counts the questions without an answer, until the pod was steady.
	misses int
	// expiry is the end of the lease at the first look after an error; zero for none.
	// renewed reports that the holder has renewed since. A pod that does not answer
	// and does not renew may be dead, and connections then wait for the next holder.
	expiry  time.Duration
	renewed bool
	// kept: a rollout must not count the standby as lost, because the holder is in a turn.
	kept bool
	// lost: no pod has answered since the standby was shown as not Ready for that reason.
	lost bool
}

// see notes the holder that the standby sees.
func (t *target) see(h holders, turn Turn) {
	t.kept = turn.Ready
	if !h.serving {
		return
	}
	if t.address != h.address {
		*t = target{address: h.address, due: true, kept: t.kept, lost: t.lost}
	}
	switch {
	case t.err == nil:
	case t.expiry == 0:
		t.expiry = h.until
	case h.until > t.expiry:
		t.renewed = true
	}
}

// reach returns the look ready if the pod answers. Otherwise the look says when to ask the
// pod again, because a missing network path may appear.
func (t *target) reach(now time.Duration, ready Look) Look {
	next := ready
	switch {
	case t.err != nil && (t.lost || !t.kept && (t.renewed || !t.answered)):
		t.lost = true
		next = look(false, ReadyUnreachable, ready.Message+", and does not answer: "+t.err.Error())
	case t.err == nil && !t.answered:
		next = keep(Never) // the first answer takes milliseconds
	}
	switch {
	case !t.due || t.asking:
	case now >= t.askAt:
		t.asking, next.Ask = true, t.address
	default:
		next = next.by(t.askAt)
	}
	return next
}

// leave returns the look ready of a standby that waits for a holder. A standby that did not
// reach the last holder waits for one that answers.
func (t *target) leave(ready Look) Look {
	if !t.lost {
		return ready
	}
	return look(false, ReadyUnreachable, ready.Message+" and answers this pod, as the last one did not")
}

// Reached notes the answer of the pod at the address, or an error instead of one.
func (r *Readiness) Reached(now time.Duration, address string, err error) {
	t := &r.target
	if t.address != address {
		return
	}
	if t.answered && t.err == nil && now >= t.since+steady {
		t.misses = 0
	}
	switch {
	case err != nil:
		t.misses++
	case t.err != nil || !t.answered:
		t.answered, t.since, t.expiry, t.renewed, t.lost = true, now, 0, false, false
	}
	t.asking, t.due, t.err = false, err != nil, err
	t.askAt = now + r.config.Jitter(min(shortestPause<<min(t.misses, 10), longestPause))
}

// Unanswered notes that the pod at the address has not answered a connection.
func (r *Readiness) Unanswered(address string) {
	if t := &r.target; t.address == address && t.answered {
		t.due = true
	}
}
