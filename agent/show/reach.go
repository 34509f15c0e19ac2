// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
)

const (
	// shortestPause is the time between two questions to the holder's pod ([target]).
	// Each question without an answer doubles the pause. Most questions fail only after
	// 2 s, so a shorter pause would save little.
	shortestPause = time.Second
	// longestPause bounds the pause, so that a standby notices within that time that a
	// network path works again.
	longestPause = 10 * time.Second
	// steady is the time for which the holder's pod has to answer until the pauses are
	// short again. On a path that fails again and again each pause stays at longestPause,
	// of which the jitter takes at most half. So the pod's readiness changes at most once
	// in 5 s.
	steady = time.Minute
)

// target is the pod to which a standby forwards. The agent asks each holder's pod once
// whether it answers. The agent asks again only after the pod did not answer a
// connection. Each question costs the application a connection, but an idle standby asks
// no further question.
type target struct {
	address string
	// due reports that the agent has to ask the pod, from the instant askAt on. The field
	// asking reports that a question is under way.
	due, asking bool
	askAt       time.Duration
	// err is the error of the last question; nil after an answer. The field answered
	// reports that the pod has answered a question. The field since is the instant of the
	// first answer after the last error.
	err      error
	answered bool
	since    time.Duration
	// misses counts the questions without an answer. A pod that has answered for the
	// time steady resets the count.
	misses int
	// expiry is the end of the lease as the standby first saw it after an error; zero for
	// none.
	expiry time.Duration
	// renewed reports that the holder has renewed since the standby noted expiry. A holder
	// that no longer answers, and does not renew, may be dead. Then the standby stays Ready,
	// and its connections wait for the next holder.
	renewed bool
	// lost reports that the standby is not Ready because a holder's pod did not answer. The
	// next answer of a holder's pod clears the field.
	lost bool
}

// see notes that the holder serves at the address, and that its lease ends at the instant
// expiry. The argument kept reports that a newer revision is in its turn. Then the function
// does not set the field lost, because a controller may delete an old pod that is not
// Ready.
func (t *target) see(address string, expiry time.Duration, kept bool) {
	if t.address != address {
		*t = target{address: address, due: true, lost: t.lost}
	}
	switch {
	case t.err == nil:
		return
	case t.expiry == 0:
		t.expiry = expiry
	case expiry > t.expiry:
		t.renewed = true
	}
	t.lost = t.lost || !kept && (t.renewed || !t.answered)
}

// reaches reports whether the target permits the standby to be Ready, and whether the first
// question is over.
func (t *target) reaches() (ready, known bool) {
	return t.err == nil || !t.lost, t.err != nil || t.answered
}

// ask returns the address of the pod if the caller has to ask the pod now. Otherwise the
// result is the instant of the next question; [instant.Never] for none.
func (t *target) ask(now time.Duration) (address string, at time.Duration) {
	switch {
	case !t.due || t.asking:
		return "", instant.Never
	case now < t.askAt:
		return "", t.askAt
	}
	t.asking = true
	return t.address, instant.Never
}

// note notes the answer of the pod, or an error instead of one.
func (t *target) note(now time.Duration, err error, jitter func(time.Duration) time.Duration) {
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
	t.askAt = now + jitter(min(shortestPause<<min(t.misses, 10), longestPause))
}
