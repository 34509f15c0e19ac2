// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leave

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// Answers is the time that the standbys have for an answer. A standby needs the time [Spread] and
	// two requests for its answer. If no standby exists, the holder waits for this time in vain, so
	// the time is short.
	Answers = 500 * time.Millisecond
	// Another replaces [Answers] once a standby has answered, and if only one pod's answer counts. Both
	// times have the same beginning. The first answer shows that the workload has standbys, so the
	// holder gives the other standbys more time. Their nodes may be busy.
	Another = 2 * time.Second
	// slower is the factor by which an answer may take longer than the holder's own write. An answer
	// takes a read, a write and two watch events. In any case the holder waits for answers no longer
	// than [Stored] after its own write.
	slower = 4
	// Spread is the time over which the answers of many standbys are spread.
	Spread = 100 * time.Millisecond
	// Stored bounds the wait until the API server has stored what the holder writes. The time
	// is enough for a second attempt: a write takes milliseconds, and another attempt follows
	// within a second.
	Stored = 3 * time.Second
	// Patience bounds the time for which the holder waits, after the endpoint delay, for a successor that
	// is not prepared. If clients connect to the successor's own address, the successor may never be prepared. A
	// shim delays the stop signal by at most the endpoint delay, this time and twice [Stored]: by default
	// 13 s. Half of the usual grace is 15 s.
	Patience = 5 * time.Second
	// Passing is the time within which every standby begins to let new connections wait. The
	// time counts from the storing of the holder's last announcement. The watch event takes
	// milliseconds, and so does the acceptance of a connection. A slow API server delays the event
	// as well as the write. So the holder waits at least twice as long as its write took.
	Passing = 40 * time.Millisecond
	// Accepting replaces [Passing] once every standby is prepared, so that new connections wait. In that
	// time the application accepts the connections that are under way, which takes milliseconds.
	Accepting = 20 * time.Millisecond
)

// Cause is the cause for which the application must stop.
type Cause int

const (
	// None means that the application continues.
	None Cause = iota
	// Yield means that a person has requested a yield.
	Yield
	// Turn means that another pod has wished for the slot, and gets it if it answers.
	Turn
	// Hang means that the application hangs, and any pod that answers gets the slot.
	Hang
	// Deletion means that the kubelet has sent its stop signal.
	Deletion
)

// Facts are the inputs of a decision.
type Facts struct {
	Cause Cause
	// Successor is the pod to which the holder yields; empty if the holder may choose one.
	Successor string
	// EndpointDelay is the time until no node sends connections to a pod that leaves its Services.
	EndpointDelay time.Duration
	// Ready reports that the application serves, and that the API server has stored that the
	// pod is Ready, or soon will be. Ready also means that the agent can see answers.
	Ready bool
	// Alone reports that no other pod claims the slot, as far as enroll knows.
	Alone bool
	// Unready reports that the API server has stored that the pod is not Ready.
	Unready bool
	// Replaced reports that the pod belongs to a StatefulSet or DaemonSet. The controller of such
	// a pod may be strict.
	Replaced bool
	// Answers are the words of other pods about this announcement.
	Answers api.Words
	// Says is the text of this announcement in the stored Lease, as [Decision.Says]. The field
	// "Serving" reports that, by the stored Lease, the application serves.
	Says    string
	Serving bool
	// PreStop reports that a preStop hook runs: the application still serves, and has not got a
	// stop signal yet.
	PreStop bool
	// Known reports that the API server has answered, since the kubelet's signal, whether the pod
	// is being deleted. Deleted is that answer, and Ends is the instant at which the grace of the
	// pod is over. If the pod is not being deleted, the kubelet only restarts a container, and an
	// earlier Cause [Deletion] no longer counts.
	Known, Deleted bool
	Ends           time.Duration
}

// needsAnswer reports whether the hold goes on unless the successor answers. A person's yield, and a
// deletion, end the hold in any case.
func (f Facts) needsAnswer() bool { return f.Cause == Turn || f.Cause == Hang }

// Decision is what the Lease and the pod's status must show, and whether the application may
// stop.
type Decision struct {
	// Says is the second word of the announcement that the Lease must show; empty for none.
	Says string
	// Withdrawn reports that nobody has answered, so the hold goes on. Answered reports that the
	// successor has answered.
	Withdrawn, Answered bool
	// The field "Out" reports that the pod must be not Ready. The field "Closed" reports that the
	// Lease must show that the application no longer serves.
	Out, Closed bool
	// The field "Over" reports that the application may stop, as far as this package is concerned.
	Over bool
	// Successor is the pod that the release must name; empty for none.
	Successor string
	// Wake is the instant of the next decision, unless the facts change before that.
	Wake time.Duration
}

// Leave is the end of one hold, from its announcement to the stop of the application. The zero value
// has not begun. A hold leaves its Services at most once: if the application goes on after that, no
// second leave delays the next stop.
type Leave struct {
	stage stage
	// leaves reports that the pod leaves its Services once enough pods have answered. The field "once"
	// reports that it has already left them, or decided against that.
	leaves, once bool
	// answered reports that the successor has answered. The field "asked" is the pod whose answer counts;
	// empty if any answer counts.
	answered bool
	asked    string
	// entered is the instant at which the stage began. The field "stored" is the instant at
	// which the agent learned that the stage's write was stored; zero before that.
	entered, stored time.Duration
	// signalled is the instant of the kubelet's stop signal; zero without a signal. The field
	// "hooked" reports that a preStop hook runs. The application gets its stop signal only after
	// the hook, so signalled then becomes the instant at which the hook ended.
	signalled time.Duration
	hooked    bool
	successor string
	// failed reports that the Lease showed, before the stage "closing", that the application did not
	// serve. Meanwhile standbys may have let connections wait. Their words stay [api.Prepared], although
	// these standbys forward again once the application serves.
	failed bool
}

// stage is a stage of a Leave.
type stage int

const (
	before stage = iota
	awaiting
	leaving
	closing
	left
	// The stage "stays" means that the application may stop, and that the pod stays in its Services until then.
	stays
)

// Next updates the leave by the facts, and returns the decision for the instant "now".
func (l *Leave) Next(now time.Duration, f Facts) Decision {
	if f.Known && !f.Deleted {
		l.signalled = 0
	}
	switch {
	case l.signalled != 0:
		f.Cause = Deletion // the kubelet never withdraws its signal
	case f.Cause == Deletion:
		l.signalled = now
	case f.Cause == None, f.needsAnswer() && l.stage != before && !l.announced(f):
		said := l.says() != ""
		l.giveUp(now)
		switch {
		case f.Cause == None:
			return Decision{Wake: pace.Never}
		case said:
			return Decision{Wake: now} // the answers so far must not count for the next announcement
		}
	}
	if l.hooked && !f.PreStop && l.signalled != 0 {
		l.signalled = now
	}
	l.hooked = f.PreStop
	wake, announced := pace.Never, l.stage
	for ended := true; ended; {
		switch l.stage {
		case before:
			ended = l.begin(now, f)
		case awaiting:
			ended, wake = l.await(now, f)
		case leaving:
			ended, wake = l.out(now, f)
		case closing:
			ended, wake = l.close(now, f)
		default:
			ended, wake = false, pace.Never
		}
	}
	d := l.decision(wake)
	d.Withdrawn = announced == awaiting && l.stage == before
	return d
}

func (l *Leave) enter(s stage, now time.Duration) {
	l.stage, l.entered, l.stored = s, now, 0
	if s == before || s == stays {
		l.successor = ""
	}
}

// announced reports whether the holder has announced the end that the facts state, and still waits for an
// answer, or has one.
func (l *Leave) announced(f Facts) bool {
	if l.stage == awaiting {
		return l.asked == f.Successor
	}
	return l.answered && (f.Successor == "" || f.Successor == l.successor)
}

// giveUp ends the leave, because the application goes on, or because another pod is to answer. An answer to
// this announcement does not end the hold later.
func (l *Leave) giveUp(now time.Duration) {
	l.once, l.answered = l.once || l.stage > awaiting, false
	l.enter(before, now)
}

// says returns the text about the leave that the Lease must show in this stage. After an answer the
// announcement stays, also if the pod does not leave its Services: to remove it would cost a write.
func (l *Leave) says() string {
	waits := l.stage == awaiting || l.stage == stays && l.answered
	switch {
	case l.stage == before || l.stage == stays && !l.answered:
		return ""
	case waits && l.asked != "":
		return api.LeavingSoon + ":" + l.asked
	case waits || l.successor == "":
		return api.LeavingSoon
	}
	return l.successor
}

func (l *Leave) decision(wake time.Duration) Decision {
	return Decision{
		Says: l.says(), Out: l.stage == leaving || l.stage == closing || l.stage == left,
		Closed: l.stage == closing || l.stage == left, Over: l.stage == left || l.stage == stays,
		Answered: l.answered, Successor: l.successor, Wake: wake,
	}
}

// The method "by" returns the instant by which the stage ends. The argument "wait" counts from
// the instant at which the stage's write is stored. Without a stored write, the argument counts
// from the instant that is [Stored] after the stage's beginning. In a deleted pod the stage ends
// early enough to leave the application half of the grace that remains after the preStop hook.
func (l *Leave) by(wait time.Duration, f Facts) time.Duration {
	at := l.entered + Stored + wait
	if l.stored != 0 {
		at = l.stored + wait
	}
	return min(at, l.half(f))
}

// half returns the instant at which half of the grace that remains after the preStop hook is over. By
// then the application must get its stop signal. Without a known deletion, the result is
// [pace.Never].
func (l *Leave) half(f Facts) time.Duration {
	if l.signalled == 0 || !f.Known {
		return pace.Never
	}
	return l.signalled + max(0, f.Ends-l.signalled)/2
}

// closesBy returns the instant by which the stage "closing" must begin, so that the standbys let new
// connections wait before the application stops. That stage needs another write, as the stage
// "leaving" did.
func (l *Leave) closesBy(f Facts) time.Duration {
	return l.half(f) - max(2*Passing, (1+slower)*l.took())
}

// took returns the time from the stage's beginning until its write was stored; zero while the
// write is not stored.
func (l *Leave) took() time.Duration {
	if l.stored == 0 {
		return 0
	}
	return l.stored - l.entered
}

// learn stores the first instant at which the agent knows that the stage's write is stored.
func (l *Leave) learn(now time.Duration, stored bool) {
	if stored && l.stored == 0 {
		l.stored = now
	}
}

// begin decides whether the holder announces its end, and whether its pod leaves its Services. A holder
// that belongs to a StatefulSet or DaemonSet leaves them only at its deletion, because the controller
// may be strict. At a yield, a strict controller would delete the holder and its successor while they
// are not Ready. An application that hangs serves no client that could notice.
func (l *Leave) begin(now time.Duration, f Facts) (ended bool) {
	l.leaves = !l.once && f.EndpointDelay != 0 && f.Ready && (f.Cause == Deletion || !f.Replaced && f.Cause != Hang)
	l.enter(awaiting, now)
	l.asked = f.Successor
	if !f.needsAnswer() && (!l.leaves || f.Alone && f.Successor == "") {
		l.enter(stays, now)
	}
	return true
}

// await decides whether the stage "awaiting" ends now. In this stage the holder waits for answers. If
// the hold needs an answer, and none comes in time, the holder withdraws its announcement. The stage
// "leaving" follows if enough pods have answered. If the time for answers is over, or the pod does not
// leave its Services, the stage "stays" follows. If the cause is [Deletion], the stage "leaving" also
// needs the API server's answer in [Facts.Known]. The result "wake" is the instant of the next decision.
func (l *Leave) await(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.learn(now, f.Says == l.says())
	l.failed = l.failed || !f.Serving
	wait, most := Answers, Stored
	if len(f.Answers) > 0 {
		wait = Another
	}
	if f.needsAnswer() {
		wait, most = Another, 10*Stored // meanwhile the application goes on, however slow the API server is
	}
	at := l.by(min(max(wait, slower*l.took()), most), f)
	taker := f.taker()
	l.answered = taker != ""
	successor, enough := f.follows(now >= at)
	switch {
	case f.needsAnswer() && !l.answered && now >= at:
		l.enter(before, now)
		return false, pace.Never
	case f.needsAnswer() && !l.answered:
		return false, at
	case l.leaves && enough && (f.Cause != Deletion || f.Known):
		l.enter(leaving, now)
		l.successor = successor
	case now >= at, !l.leaves:
		l.enter(stays, now)
		if f.needsAnswer() {
			l.successor = taker
		}
	default:
		return false, at
	}
	return true, 0
}

// taker returns the pod that has answered that it can take the slot; empty if there is none. Of an
// asked pod, only its own answer counts.
func (f Facts) taker() string {
	for _, w := range f.Answers {
		if w.Say != api.Stays && (f.Successor == "" || f.Successor == w.Identity) {
			return w.Identity
		}
	}
	return ""
}

// follows returns the successor, and whether enough pods have answered. Enough means that one Ready
// pod stays beside the successor. But no node sends connections to a deleted pod anyway. So for a
// deleted pod without a [Facts.Successor] that answers, one pod that stays is enough in two cases. The
// pod is Replaced, or the argument "last" reports that the time for answers is over. In both cases the
// result "successor" is empty, so that no standby leaves its Services.
func (f Facts) follows(last bool) (successor string, enough bool) {
	if f.Cause == Deletion && f.Successor != "" && f.taker() == "" {
		if !last {
			return "", false
		}
		f.Successor = ""
	}
	stay := 0
	for _, w := range f.Answers {
		switch {
		case w.Identity == f.Successor:
			continue
		case f.Successor == "" && successor == "" && w.Say == api.Either && (f.Cause != Deletion || !f.Replaced):
			successor = w.Identity
		case forwards(w):
			stay++
		}
	}
	switch {
	case f.Successor != "":
		return f.Successor, stay > 0
	case successor != "" && stay > 0:
		return successor, true
	case f.Cause == Deletion && (last || f.Replaced) && (stay > 0 || successor != ""):
		return "", true
	}
	return "", false
}

// forwards reports whether a pod that says this stays Ready, and is not prepared.
func forwards(w api.Word) bool { return w.Say == api.Stays || w.Say == api.Either }

// The method "out" decides whether the stage "leaving" ends now. In this stage the pod is not
// Ready, but its application serves. The stage ends when no node sends connections to the pod, or to
// its successor, any more. If a preStop hook runs, the stage also lasts until the hook ends, or until
// the grace of the pod is over.
func (l *Leave) out(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.learn(now, f.Says == l.says() && (f.Unready || f.Cause == Deletion))
	l.failed = l.failed || !f.Serving
	at := l.by(f.EndpointDelay, f)
	if l.stored != 0 && f.unpreparedSuccessor(l.successor) {
		at = max(at, min(l.by(f.EndpointDelay+Patience, f), l.closesBy(f)))
	}
	switch {
	case now < at:
		return false, at
	case f.PreStop && f.Known && now < f.Ends:
		return false, f.Ends
	case f.PreStop && !f.Known:
		return false, pace.Never
	}
	l.enter(closing, now)
	return true, 0
}

// unpreparedSuccessor reports whether the successor has answered, and is not prepared. Then a node may
// still send the successor connections. A successor without an answer was not Ready, so no node does.
func (f Facts) unpreparedSuccessor(successor string) bool {
	return slices.ContainsFunc(f.Answers, func(w api.Word) bool { return w.Identity == successor && w.Say != api.Prepared })
}

// unpreparedStandby reports whether another pod than the successor stays, and is not prepared. Such a
// pod may still forward connections.
func (f Facts) unpreparedStandby(successor string) bool {
	return slices.ContainsFunc(f.Answers, func(w api.Word) bool { return w.Identity != successor && forwards(w) })
}

// knowsStandbys reports whether the holder knows each standby that may forward connections. After
// [api.MostAnswers] answers, further standbys do not answer. Without an answer of another pod than the
// successor, the answers are lost, because no holder leaves without such an answer.
func (f Facts) knowsStandbys(successor string) bool {
	others := 0
	for _, w := range f.Answers {
		if w.Identity != successor {
			others++
		}
	}
	return others > 0 && len(f.Answers) < api.MostAnswers
}

// PreparedAt returns the instant at which a successor is prepared, because no node sends it
// connections. The argument "unready" is the instant since which the successor knows that the API
// server has stored that the successor is not Ready. The argument "last" is the instant of the last new
// connection. A node that is late may still send connections after the endpoint delay. So the successor
// also waits until no connection has come for half that delay.
func PreparedAt(unready, last, delay time.Duration) time.Duration {
	return max(unready+delay, last+delay/2)
}

// close decides whether the stage "closing" ends now. In this stage the standbys begin to let new
// connections wait. Then these standbys are prepared. The result "wake" is the instant of the next
// decision.
func (l *Leave) close(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.learn(now, !f.Serving)
	wait := max(Passing, 2*l.took())
	switch {
	case f.unpreparedStandby(l.successor), l.failed:
		wait = max(Passing, slower*l.took())
	case f.knowsStandbys(l.successor):
		wait = Accepting
	}
	at := l.by(min(wait, Stored), f)
	if now < at {
		return false, at
	}
	l.enter(left, now)
	return true, 0
}
