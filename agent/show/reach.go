// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"math"
	"time"
)

// Never is an instant that never comes.
const Never = time.Duration(math.MaxInt64)

const (
	// shortestPause is the time between two questions to the holder's pod. Each question
	// without an answer doubles the pause. Most questions fail only after 2 s, so a shorter
	// pause would save little.
	shortestPause = time.Second
	// longestPause is the delay after which a standby notices that a network path is back.
	longestPause = 10 * time.Second
	// steady is the time for which the holder's pod has to answer until the pauses are
	// short again. A path that comes and goes then changes readiness every 5 s at most.
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
	expiry time.Duration
	// renewed: the holder has renewed since that look. A pod that does not answer and
	// does not renew may be dead, and connections then wait for the next holder.
	renewed bool
	// lost: no pod has answered since the standby was not Ready for that reason.
	lost bool
}

// see notes that the holder serves at the address, and that its lease ends at the instant
// expiry. While a newer revision is in its turn, a standby that was not lost before is kept
// Ready, because a controller would delete the pod.
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

// ask returns the address of the pod if the caller is to ask it now. Otherwise ask returns
// the instant of the next question; [Never] for none.
func (t *target) ask(now time.Duration) (address string, at time.Duration) {
	switch {
	case !t.due || t.asking:
		return "", Never
	case now < t.askAt:
		return "", t.askAt
	}
	t.asking = true
	return t.address, Never
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
