// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leave

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// Answers is the time in which the standbys can offer. A standby offers within
	// [Spread] and two requests. Without standbys, this time alone delays the end of the
	// application.
	Answers = 500 * time.Millisecond
	// Another is the time for a second offer after a first one. The first offer shows
	// that the workload has standbys, and the other standbys may be on busy nodes.
	Another = 2 * time.Second
	// slower is the factor by which an offer may take longer than the holder's own write.
	// An offer takes a read, a write and two events. [Stored] bounds the time for an offer,
	// too.
	slower = 4
	// Spread is the time over which the offers of many standbys are spread.
	Spread = 100 * time.Millisecond
	// Stored bounds the wait until the API server has stored what the holder writes. That
	// time is enough for a retry: a write takes milliseconds, and a retry follows within
	// a second.
	Stored = 3 * time.Second
	// Passing is the time after which every standby lets new connections wait. This time
	// counts from the write by which the holder asks for that. The watch event of the write
	// takes milliseconds, and so does accepting a connection. If the write itself takes
	// longer than Passing, the event may take as long as the write.
	Passing = 50 * time.Millisecond
)

// Cause says why the application is to stop.
type Cause int

const (
	// None: the application is to go on.
	None Cause = iota
	// Yield: a person has asked for a yield.
	Yield
	// Turn: a newer revision has its turn.
	Turn
	// Deletion: the kubelet has sent its stop signal.
	Deletion
)

// Facts has what the decision depends on.
type Facts struct {
	Cause Cause
	// Successor is the pod to which the holder yields; empty if any pod may follow.
	Successor string
	// Delay is the endpoint delay: the time until no node sends connections to a pod that
	// leaves its Services.
	Delay time.Duration
	// Ready reports that the application serves, that the API server has stored that the
	// pod is Ready, and that the agent sees the offers.
	Ready bool
	// Unready reports that the API server has stored that the pod is not Ready.
	Unready bool
	// Replaced reports that the pod is of a StatefulSet or DaemonSet. Some of their
	// controllers delete old pods that are not Ready.
	Replaced bool
	// Offers are the offers of other pods to this leave.
	Offers []api.Offer
	// Says is what the stored Lease says about the leave, like [Decision.Says]. The field
	// Serving reports that the stored Lease says that the application serves.
	Says    string
	Serving bool
	// PreStop reports that a preStop hook runs: the application serves, and has no stop
	// signal yet.
	PreStop bool
	// Known reports that the API server has told, since the kubelet's signal, whether the
	// pod is being deleted. The field Deleted is that answer. The field Ends is the instant
	// at which the pod's grace is over. If the pod is not deleted, the kubelet restarts a
	// container, and Cause is never [Deletion].
	Known, Deleted bool
	Ends           time.Duration
}

// Decision says what the holder's Lease and status are to show, and whether the
// application may stop.
type Decision struct {
	// Says is what the Lease is to say; empty for nothing.
	Says string
	// Out: the pod is to be not Ready. Closed: the Lease is to say that the application
	// serves no more.
	Out, Closed bool
	// Over: nothing delays the end of the application any more.
	Over bool
	// Successor is the pod that the release names; empty for any.
	Successor string
	// Wake is the instant of the next decision, if nothing happens before it.
	Wake time.Duration
}

// Leave is the way of one hold out of its Services. The zero value has not begun. A hold
// leaves at most once: if the application goes on after all, no leave delays the next end
// of that hold.
type Leave struct {
	stage stage
	// entered is the instant at which the stage began. The field stored is the instant by
	// which the API server had stored the stage's write; zero until then.
	entered, stored time.Duration
	// signalled is the instant of the kubelet's stop signal; zero for none. The field
	// hooked reports that a preStop hook runs. The application gets no stop signal before
	// the end of the hook, so the field signalled then becomes the instant of that end.
	signalled time.Duration
	hooked    bool
	successor string
}

// stage is a state of a Leave.
type stage int

const (
	before stage = iota
	asking
	leaving
	closing
	left
	// stays: the holder does not leave, or gave up its leave because the application goes
	// on.
	stays
)

// Next takes in the facts, and returns the decision at the instant now.
func (l *Leave) Next(now time.Duration, f Facts) Decision {
	if f.Known && !f.Deleted {
		l.signalled = 0
	}
	switch {
	case l.signalled != 0:
		f.Cause = Deletion // the kubelet does not take its signal back
	case f.Cause == Deletion:
		l.signalled = now
	case f.Cause == None && l.stage != before:
		l.enter(stays, now)
		fallthrough
	case f.Cause == None:
		return Decision{Wake: instant.Never}
	}
	if l.hooked && !f.PreStop && l.signalled != 0 {
		l.signalled = now
	}
	l.hooked = f.PreStop
	wake := instant.Never
	for ended := true; ended; {
		switch l.stage {
		case before:
			ended = l.begin(now, f)
		case asking:
			ended, wake = l.ask(now, f)
		case leaving:
			ended, wake = l.out(now, f)
		case closing:
			ended, wake = l.close(now, f)
		default:
			ended, wake = false, instant.Never
		}
	}
	return l.decision(wake)
}

func (l *Leave) enter(s stage, now time.Duration) {
	l.stage, l.entered, l.stored = s, now, 0
	if s == stays {
		l.successor = ""
	}
}

// says returns the text about the leave that the Lease is to show.
func (l *Leave) says() string {
	switch {
	case l.stage == before || l.stage == stays:
		return ""
	case l.successor == "" || l.stage == asking:
		return api.LeavingSoon
	}
	return l.successor
}

func (l *Leave) decision(wake time.Duration) Decision {
	return Decision{
		Says: l.says(), Out: l.stage == leaving || l.stage == closing || l.stage == left,
		Closed: l.stage == closing || l.stage == left, Over: l.stage == left || l.stage == stays,
		Successor: l.successor, Wake: wake,
	}
}

// by returns the instant by which the stage ends. The wait begins when the write is
// stored, or after [Stored] if the API server does not store the write. In a deleted pod
// the stage ends early enough to give the application half of the grace that remains
// after the preStop hook.
func (l *Leave) by(wait time.Duration, f Facts) time.Duration {
	at := l.entered + Stored + wait
	if l.stored != 0 {
		at = l.stored + wait
	}
	if l.signalled != 0 && f.Known {
		at = min(at, l.signalled+max(0, f.Ends-l.signalled)/2)
	}
	return at
}

// took returns the time that the stage's own write took; zero while that is unknown.
func (l *Leave) took() time.Duration {
	if l.stored == 0 {
		return 0
	}
	return l.stored - l.entered
}

// note notes whether the API server has stored what the stage writes.
func (l *Leave) note(now time.Duration, stored bool) {
	if stored && l.stored == 0 {
		l.stored = now
	}
}

// begin decides whether the holder asks for offers at all. Some controllers delete old pods
// that are not Ready. Under such a controller a yielding holder does not leave, because the
// controller would delete the holder and the successor.
func (l *Leave) begin(now time.Duration, f Facts) (ended bool) {
	l.enter(asking, now)
	if f.Delay == 0 || !f.Ready || f.Cause != Deletion && f.Replaced {
		l.enter(stays, now)
	}
	return true
}

// ask waits for offers.
func (l *Leave) ask(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.note(now, f.Says == api.LeavingSoon)
	wait := Answers
	if len(f.Offers) > 0 {
		wait = Another
	}
	at := l.by(min(max(wait, slower*l.took()), Stored), f)
	successor, enough := f.follows(now >= at)
	switch {
	case enough && (f.Cause != Deletion || f.Known):
		l.enter(leaving, now)
		l.successor = successor
	case now >= at:
		l.enter(stays, now)
	default:
		return false, at
	}
	return true, 0
}

// follows returns the pod that follows the holder, and whether enough pods have offered.
// Enough means that one Ready pod stays beside the pod that follows. A deleted pod without
// [Facts.Successor] needs only one offer in two cases: the pod is Replaced, or the time for
// offers is over (last). Nodes send no connections to a deleted pod anyway.
func (f Facts) follows(last bool) (successor string, enough bool) {
	stay := 0
	for _, o := range f.Offers {
		switch {
		case o.Identity == f.Successor:
			continue
		case f.Successor == "" && successor == "" && o.Takes && (f.Cause != Deletion || !f.Replaced):
			successor = o.Identity
		default:
			stay++
		}
	}
	switch {
	case f.Successor != "":
		return f.Successor, stay > 0
	case successor != "" && stay > 0:
		return successor, true
	case f.Cause == Deletion && (last || f.Replaced) && len(f.Offers) > 0:
		return "", true
	}
	return "", false
}

// out waits until no node sends connections to the pod any more, and until the preStop
// hook has ended. Meanwhile the application serves.
func (l *Leave) out(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.note(now, f.Says == l.says() && (f.Unready || f.Cause == Deletion))
	at := l.by(f.Delay, f)
	switch {
	case now < at:
		return false, at
	case f.PreStop && f.Known && now < f.Ends:
		return false, f.Ends
	case f.PreStop && !f.Known:
		return false, instant.Never
	}
	l.enter(closing, now)
	return true, 0
}

// close waits until the standbys let new connections wait.
func (l *Leave) close(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.note(now, !f.Serving)
	at := l.by(min(max(Passing, l.took()), Stored), f)
	if now < at {
		return false, at
	}
	l.enter(left, now)
	return true, 0
}
