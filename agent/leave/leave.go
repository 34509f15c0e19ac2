// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leave

import (
	"cmp"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// Answers is the time that the standbys have for an answer, which takes [Spread] and two requests. Without
	// standbys the holder waits in vain, so the time is short.
	Answers = 500 * time.Millisecond
	// Another replaces [Answers], from the same beginning, once a standby has answered, and if the hold needs an
	// answer. The first answer shows that the workload has standbys, and the nodes of the others may be busy.
	Another = api.AnswerTime
	// slower is the factor by which an answer may take longer than the holder's own write: it takes a read, a
	// write and two watch events.
	slower = 4
	// Spread is the time over which the answers of many standbys are spread.
	Spread = 100 * time.Millisecond
	// Stored bounds the wait until the API server has stored what the holder writes, and the wait for answers
	// that no hold needs. The time is enough for a second attempt, which follows within a second.
	Stored = 3 * time.Second
	// Patience bounds the wait, after the endpoint delay, for a successor that is not prepared. It may never be, if
	// clients connect to its own address. A shim delays the stop signal by at most the endpoint delay, this time
	// and twice [Stored]: by default 13 s. Half of the usual grace is 15 s.
	Patience = 5 * time.Second
	// After an announcement that nobody has answered, the next one waits for Pause, and each time twice as long,
	// up to LongestPause.
	Pause        = 10 * time.Second
	LongestPause = 5 * time.Minute
	// Passing is the time within which every standby begins to let new connections wait, once the holder's last
	// announcement is stored. The watch event takes milliseconds, and so does the acceptance of a connection. A
	// slow API server delays the event as well as the write, so the holder waits at least twice as long as that.
	Passing = 40 * time.Millisecond
	// Accepting replaces [Passing] once every standby is prepared. In that time the application accepts the
	// connections that are under way, which takes milliseconds.
	Accepting = 20 * time.Millisecond
)

// Cause is the cause for which the application must stop.
type Cause int

const (
	None     Cause = iota // the application continues
	Yield                 // a person has requested a yield
	Turn                  // another pod has wished for the slot, and gets it if it answers
	Hang                  // the application hangs, and any pod that answers gets the slot
	Deletion              // the kubelet has sent its stop signal
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
	// Replaced reports that the pod belongs to a StatefulSet or DaemonSet, whose controller may be strict.
	Replaced bool
	// Answers are the words of other pods about this announcement.
	Answers api.Words
	// Says is [Decision.Says] as the Lease has it for this announcement. Serving reports that, by the stored
	// Lease, the application serves.
	Says    string
	Serving bool
	// PreStop reports that a preStop hook runs, so the application has not got a stop signal yet.
	PreStop bool
	Grace
}

// Grace is what the API server has answered, since the kubelet's signal, about the pod's deletion.
type Grace struct {
	// Known reports that it has answered, and Deleted is the answer. Ends is the instant at which the grace of
	// the pod is over.
	Known, Deleted bool
	Ends           time.Duration
}

// Restarts reports that the pod is not being deleted. Then the kubelet only restarts a container, and an earlier
// Cause [Deletion] no longer counts.
func (g Grace) Restarts() bool { return g.Known && !g.Deleted }

// needsAnswer reports whether the hold goes on unless the successor answers. A person's yield, and a
// deletion, end the hold in any case.
func (f Facts) needsAnswer() bool { return f.Cause == Turn || f.Cause == Hang }

// Decision is what the Lease and the pod's status must show, and whether the application may stop.
type Decision struct {
	// Says is the second word of the announcement that the Lease must show; empty for none.
	Says string
	// Withdrawn reports that nobody has answered, so the hold goes on. Answered reports that the
	// successor has answered.
	Withdrawn, Answered bool
	// Out reports that the pod must be not Ready, Closed that the Lease must show that the application no longer
	// serves, and Over that the application may stop, as far as this package is concerned.
	Out, Closed, Over bool
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
	// leaves reports that the pod leaves its Services once enough pods have answered, and once that it has already
	// left them, or decided against that.
	leaves, once bool
	// says is the text about the leave that the Lease must show. After an answer the announcement stays, also
	// if the pod does not leave its Services: to remove it would cost a write.
	says string
	// answered reports that the successor has answered.
	answered bool
	// entered is the instant at which the stage began, and stored that at which the agent learned that the
	// stage's write was stored; zero before that.
	entered, stored time.Duration
	// signalled is the instant of the kubelet's stop signal; zero without one. The application gets it only after
	// a preStop hook, so signalled becomes the instant at which the hook ended. Hooked reports that one runs.
	signalled time.Duration
	hooked    bool
	successor string
	// failed reports that the Lease showed, before the stage "closing", that the application did not serve. Then
	// standbys may have said [api.Prepared], although they forward again once the application serves.
	failed bool
}

type stage int

const (
	before stage = iota
	awaiting
	leaving
	closing
	left
	stays // the application may stop, and the pod stays in its Services until then
)

// Next updates the leave by the facts, and returns the decision for the instant "now".
func (l *Leave) Next(now time.Duration, f Facts) Decision {
	if f.Restarts() {
		l.signalled = 0
	}
	switch {
	case l.signalled != 0:
		f.Cause = Deletion // the kubelet never withdraws its signal
	case f.Cause == Deletion:
		l.signalled = now
	case f.Cause == None, f.needsAnswer() && l.stage != before && !l.announced(f):
		// The application goes on, or another pod is to answer. The answer so far must not end the hold later.
		said := l.says
		l.once, l.answered = l.once || l.stage > awaiting, false
		l.enter(before, now)
		switch {
		case f.Cause == None:
			return Decision{Wake: pace.Never}
		case said != "":
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
			l.begin(now, f)
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
	return Decision{
		Says: l.says, Out: l.stage == leaving || l.stage == closing || l.stage == left,
		Closed: l.stage == closing || l.stage == left, Over: l.stage == left || l.stage == stays,
		Withdrawn: announced == awaiting && l.stage == before, Answered: l.answered, Successor: l.successor, Wake: wake,
	}
}

func (l *Leave) enter(s stage, now time.Duration) {
	l.stage, l.entered, l.stored = s, now, 0
	if s == before || s == stays {
		l.successor = ""
	}
	if s == before || s == stays && !l.answered {
		l.says = ""
	}
}

// announced reports whether the holder has announced the end that the facts state, and still waits for an
// answer, or has one.
func (l *Leave) announced(f Facts) bool {
	if l.stage == awaiting {
		return l.says == announcement(f.Successor)
	}
	return l.answered && (f.Successor == "" || f.Successor == l.successor)
}

// announcement returns the text of a holder that waits for an answer of the given pod; of any pod if it is
// empty.
func announcement(asked string) string {
	if asked == "" {
		return api.LeavingSoon
	}
	return api.LeavingSoon + ":" + asked
}

// by returns the instant by which the stage ends: after the given wait, which begins once the stage's write is
// stored, or [Stored] after the stage's beginning. In a deleted pod the stage ends earlier, at [Leave.half].
func (l *Leave) by(wait time.Duration, f Facts) time.Duration {
	at := l.entered + Stored + wait
	if l.stored != 0 {
		at = l.stored + wait
	}
	return min(at, l.half(f))
}

// half returns the instant at which half of the grace that remains after the preStop hook is over. By then the
// application must get its stop signal, if the pod is being deleted.
func (l *Leave) half(f Facts) time.Duration {
	if l.signalled == 0 || !f.Known {
		return pace.Never
	}
	return l.signalled + max(0, f.Ends-l.signalled)/2
}

// took returns the time that the stage's write took; zero while it is not stored.
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

// begin decides whether the holder announces its end, and whether its pod leaves its Services. At a yield, a
// strict controller would delete the holder and its successor while they are not Ready. An application that
// hangs serves no client that could notice.
func (l *Leave) begin(now time.Duration, f Facts) {
	l.leaves = !l.once && f.EndpointDelay != 0 && f.Ready && (f.Cause == Deletion || !f.Replaced && f.Cause != Hang)
	l.enter(awaiting, now)
	l.says = announcement(f.Successor)
	if !f.needsAnswer() && (!l.leaves || f.Alone && f.Successor == "") {
		l.enter(stays, now)
	}
}

// await decides whether the stage "awaiting" ends now. If the hold needs an answer, and none comes in time, the
// holder withdraws its announcement. A pod leaves its Services once enough pods have answered and, at a
// deletion, the API server has: the kubelet may only restart a container.
func (l *Leave) await(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.learn(now, f.Says == l.says)
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
		l.successor, l.says = successor, cmp.Or(successor, api.LeavingSoon)
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

// taker returns the pod that has answered that it can take the slot; empty if there is none.
func (f Facts) taker() string {
	for _, w := range f.Answers {
		if w.Say != api.Stays && (f.Successor == "" || f.Successor == w.Identity) {
			return w.Identity
		}
	}
	return ""
}

// follows returns the successor, and whether enough pods have answered, so that one Ready pod stays beside the
// successor. No node sends connections to a deleted pod anyway. So for a deleted pod without a [Facts.Successor]
// that answers, one pod that stays is enough if the pod is Replaced, or if the argument "last" reports that the
// time for answers is over. Then no pod is the successor, so that no standby leaves its Services.
func (f Facts) follows(last bool) (successor string, enough bool) {
	if f.Cause == Deletion && f.Successor != "" && f.taker() == "" {
		if !last {
			return "", false
		}
		f.Successor = ""
	}
	successor, stay := f.Successor, 0
	for _, w := range f.Answers {
		switch {
		case w.Identity == successor:
		case successor == "" && w.Say == api.Either && (f.Cause != Deletion || !f.Replaced):
			successor = w.Identity
		case forwards(w):
			stay++
		}
	}
	if f.Cause == Deletion && f.Successor == "" && (successor == "" || stay == 0) {
		return "", (last || f.Replaced) && (successor != "" || stay > 0)
	}
	return successor, successor != "" && stay > 0
}

// forwards reports whether a pod that says this stays Ready, and is not prepared.
func forwards(w api.Word) bool { return w.Say == api.Stays || w.Say == api.Either }

// out decides whether the stage "leaving" ends now. The pod is not Ready, and its application serves until no node
// sends connections to the pod, or to its successor, any more. The stage also lasts until a preStop hook ends, or
// the grace of the pod is over.
func (l *Leave) out(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.learn(now, f.Says == l.says && (f.Unready || f.Cause == Deletion))
	l.failed = l.failed || !f.Serving
	at := l.by(f.EndpointDelay, f)
	// Without an answer the successor was not Ready, so no node sends it connections.
	unprepared := func(w api.Word) bool { return w.Identity == l.successor && w.Say != api.Prepared }
	if l.stored != 0 && slices.ContainsFunc(f.Answers, unprepared) {
		// The standbys must let new connections wait before half of the grace is over, after one more write.
		closesBy := l.half(f) - max(2*Passing, (1+slower)*l.took())
		at = max(at, min(l.by(f.EndpointDelay+Patience, f), closesBy))
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

// PreparedAt returns the instant at which a successor is prepared, because no node sends it connections. It has
// known since the instant "unready" that the API server has stored that it is not Ready, and the last new
// connection came at the instant "last". A late node may still send connections after the endpoint delay, so the
// successor also waits until none has come for half that delay.
func PreparedAt(unready, last, delay time.Duration) time.Duration {
	return max(unready+delay, last+delay/2)
}

// close decides whether the stage "closing" ends now, in which the standbys begin to let new connections wait.
func (l *Leave) close(now time.Duration, f Facts) (ended bool, wake time.Duration) {
	l.learn(now, !f.Serving)
	others, unprepared := 0, l.failed
	for _, w := range f.Answers {
		if w.Identity != l.successor {
			others, unprepared = others+1, unprepared || forwards(w)
		}
	}
	wait := max(Passing, 2*l.took())
	switch {
	case unprepared:
		wait = max(Passing, slower*l.took())
	// After [api.MostAnswers] answers, further standbys forward without an answer. Without an answer of another
	// pod than the successor, the answers are lost, because no holder leaves without such an answer.
	case others > 0 && len(f.Answers) < api.MostAnswers:
		wait = Accepting
	}
	at := l.by(min(wait, Stored), f)
	if now < at {
		return false, at
	}
	l.enter(left, now)
	return true, 0
}
