// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
)

const (
	// shortestPause is the first pause between two checks of the holder's pod ([target]). Each
	// check without an answer doubles the pause. Such a check usually waits 2 s for an answer, so a
	// shorter pause would save little time.
	shortestPause = time.Second
	// longestPause bounds the pause between two checks. So within about 10 s a standby notices
	// that a network path works again.
	longestPause = 10 * time.Second
	// steady is the time for which the holder's pod must answer without a failure before the next
	// pause is shortestPause again. On a path that fails more often, the pauses grow to longestPause.
	// The jitter shortens a pause by at most half, so the standby's readiness then changes at most
	// once in 5 s.
	steady = time.Minute
	// checkPause is the least average time between two checks, whatever the targets. checkBurst is the
	// number of checks in direct succession. Without these bounds, a writer of the Lease could make
	// all standbys connect to other addresses many times a second.
	checkPause = time.Second
	checkBurst = 10
)

// target is the pod to which a standby forwards. For each holder, the agent checks once whether the
// holder's pod answers. After a check or a forwarded connection without an answer, the agent checks
// again. Each check costs the application a connection, but an idle standby of a holder that
// answers makes no further checks.
type target struct {
	address string
	// due reports that the agent must check the pod, from the instant checkAt on. The field
	// "checking" reports that a check is under way.
	due, checking bool
	checkAt       time.Duration
	// err is the error of the last check; nil after an answer. The field "answered" reports
	// that the pod has answered a check. The field "since" is the instant of the first answer
	// after the last error.
	err      error
	answered bool
	since    time.Duration
	// misses counts the checks without an answer. After a pod has answered for the duration in
	// the constant "steady", the count begins at zero again.
	misses int
	// expiry is the instant at which the holder's Lease expires. After an error, the first
	// call of [target.see] sets the field, and later calls keep this value. Without an error,
	// expiry is zero.
	expiry time.Duration
	// The field "renewed" reports that the holder has renewed since the standby stored the value
	// of the field "expiry". If a holder neither answers nor renews, it may be dead. The standby
	// then stays Ready, and its connections wait for the next holder.
	renewed bool
	// The field "lost" reports that the standby is not Ready because a holder's pod did not
	// answer. The next answer of a holder's pod clears the field.
	lost bool
	// pace bounds the rate of the checks of all targets together.
	pace pace.Pace
}

// The method "see" stores that the holder serves at the address, and that the holder's Lease
// expires at the instant in the argument "expiry". The argument "kept" reports that a newer
// revision is in its turn. If "kept" is true, the method does not set the field "lost", because a
// strict controller would delete an old pod that is not Ready.
func (t *target) see(address string, expiry time.Duration, kept bool) {
	if t.address != address {
		*t = target{address: address, due: true, lost: t.lost, pace: t.pace}
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

// The method "reaches" reports whether the standby may be Ready, as far as the target is
// concerned. The result "known" reports that the first check has ended.
func (t *target) reaches() (ready, known bool) {
	return t.err == nil || !t.lost, t.err != nil || t.answered
}

// check returns the address of the holder's pod if the caller must check that pod now. If not, the
// second result is the instant of the next check; [pace.Never] for none.
func (t *target) check(now time.Duration) (address string, at time.Duration) {
	switch {
	case !t.due || t.checking:
		return "", pace.Never
	case now < t.checkAt:
		return "", t.checkAt
	case !t.pace.TrySpend(now):
		return "", t.pace.NextAt()
	}
	t.checking = true
	return t.address, pace.Never
}

// learn stores the result of a check. The argument "err" is nil if the pod has answered.
func (t *target) learn(now time.Duration, err error, jitter func(time.Duration) time.Duration) {
	if t.answered && t.err == nil && now >= t.since+steady {
		t.misses = 0
	}
	switch {
	case err != nil:
		t.misses++
	case t.err != nil || !t.answered:
		t.answered, t.since, t.expiry, t.renewed, t.lost = true, now, 0, false, false
	}
	t.checking, t.due, t.err = false, err != nil, err
	t.checkAt = now + jitter(min(shortestPause<<min(t.misses, 10), longestPause))
}
