// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leave

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	began = time.Hour
	delay = 2 * time.Second
	// written is the time from a decision until the API server has stored the write that follows
	// from the decision.
	written = 10 * time.Millisecond
	tick    = 5 * time.Millisecond
)

var (
	two  = api.Words{{Identity: "b", Say: api.Either}, {Identity: "c", Say: api.Either}}
	one  = two[:1]
	none = api.Words(nil)
	// asked is the answer of the pod that has wished for the slot, and was never Ready.
	asked = api.Words{{Identity: "n", Say: api.Prepared}}
	three = append(asked[:1:1], two...)
)

// play has the inputs and the results of one simulated Leave. The simulated API server stores each
// write after a while.
type play struct {
	facts Facts
	// The field "after" is the time from the beginning of the simulation until the offers arrive.
	// If mute is true, the API server stores no write.
	offers  api.Words
	after   time.Duration
	mute    bool
	elapsed time.Duration
	// If the field "slow" is not zero, this field replaces [written].
	slow time.Duration
	// hook is the time that the preStop hook takes.
	hook time.Duration
	// The field "late" is the further time after which no connection reaches the successor. The field
	// "hears" is the time after which another standby lets new connections wait.
	late, hears time.Duration
	// The field "out" is the time from the beginning of the simulation until the API server has
	// stored that the pod is not Ready. The field "held" is the time from the same beginning
	// until the Lease shows that the application no longer serves.
	out, held time.Duration
	last      Decision
}

// run simulates the Leave until the application may stop, and returns the elapsed time.
func (p *play) run(t *testing.T) time.Duration {
	t.Helper()
	var l Leave
	since := map[string]time.Duration{}
	stored := func(key string, wanted bool) bool {
		if !wanted || p.mute {
			return false
		}
		if _, known := since[key]; !known {
			since[key] = p.elapsed
		}
		return p.elapsed >= since[key]+max(p.slow, written)
	}
	for ; p.elapsed < time.Minute; p.elapsed += tick {
		f := p.facts
		f.Ready, f.Serving, f.PreStop = !p.last.Out, true, p.elapsed < p.hook
		if p.elapsed >= p.after {
			f.Answers = p.answering(since)
		}
		if stored("says "+p.last.Says, p.last.Says != "") {
			f.Says = p.last.Says
		}
		if stored("out", p.last.Out) {
			f.Unready = true
			p.out = max(p.out, since["out"]+written)
		}
		if stored("held", p.last.Closed) {
			f.Serving = false
			p.held = since["held"] + written
		}
		p.last = l.Next(began+p.elapsed, f)
		if p.last.Over {
			return p.elapsed
		}
		require.Greater(t, p.last.Wake, began+p.elapsed, "the decision has a next instant")
	}
	require.FailNow(t, "the application never stops")
	return 0
}

// answering returns the answers. Once the holder has named one of the pods as its successor, that pod
// is prepared after the delay. The other pods are prepared once the application no longer serves.
func (p *play) answering(since map[string]time.Duration) api.Words {
	offers := slices.Clone(p.offers)
	for i, o := range offers {
		event, after := "held", p.hears
		if p.last.Says == o.Identity {
			event, after = "says "+o.Identity, delay+p.late
		}
		if at, known := since[event]; known && p.elapsed >= at+2*max(p.slow, written)+after {
			offers[i].Say = api.Prepared
		}
	}
	return offers
}

func TestHolderLeavesOnlyIfEnoughStandbysMakeAnswers(t *testing.T) {
	whole := delay + Passing + 4*written
	for name, c := range map[string]struct {
		facts     Facts
		offers    api.Words
		successor string
		out       bool
		most      time.Duration
	}{
		"yield, nobody offers":              {Facts{Cause: Yield}, none, "", false, Answers + 2*written},
		"yield, one pod offers":             {Facts{Cause: Yield}, one, "", false, Another + 2*written},
		"yield, two pods offer":             {Facts{Cause: Yield}, two, "b", true, whole},
		"yield to c, two pods offer":        {Facts{Cause: Yield, Successor: "c"}, two, "c", true, whole},
		"yield to b, which alone offers":    {Facts{Cause: Yield, Successor: "b"}, one, "", false, Another + 2*written},
		"turn, nobody else answers":         {Facts{Cause: Turn, Successor: "n"}, asked, "n", false, Another + 2*written},
		"turn, one pod answers":             {Facts{Cause: Turn, Successor: "n"}, three[:2], "n", true, whole},
		"turn of a DaemonSet":               {Facts{Cause: Turn, Successor: "n", Replaced: true}, three, "n", false, 0},
		"hang":                              {Facts{Cause: Hang}, two, "b", false, 0},
		"hang, a pod only forwards":         {Facts{Cause: Hang}, append(api.Words{{Identity: "c", Say: api.Stays}}, asked...), "n", false, 0},
		"deletion, enroll knows of nobody":  {Facts{Cause: Deletion, Alone: true, Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, none, "", false, 0},
		"yield in a DaemonSet":              {Facts{Cause: Yield, Replaced: true}, two, "", false, 0},
		"deletion, two pods offer":          {Facts{Cause: Deletion, Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, two, "b", true, whole},
		"deletion, one pod offers":          {Facts{Cause: Deletion, Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, one, "", true, Another + whole},
		"deletion, nobody offers":           {Facts{Cause: Deletion, Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, none, "", false, Answers + 2*written},
		"deletion in a DaemonSet":           {Facts{Cause: Deletion, Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}, Replaced: true}, two, "", true, whole},
		"deletion, one asks and one offers": {Facts{Cause: Deletion, Successor: "n", Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, three[:2], "n", true, whole},
		"deletion, the asker is dead":       {Facts{Cause: Deletion, Successor: "n", Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, two, "b", true, Another + whole},
		"no endpoint delay":                 {Facts{Cause: Yield}, two, "", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := play{facts: c.facts, offers: c.offers}
			if name != "no endpoint delay" {
				p.facts.EndpointDelay = delay
			}
			took := p.run(t)
			assert.LessOrEqual(t, took, c.most+tick)
			assert.Equal(t, c.successor, p.last.Successor)
			assert.Equal(t, c.out, p.last.Out)
			if c.out {
				assert.GreaterOrEqual(t, took, delay+Accepting)
			}
		})
	}
}

// A slow node may send connections to the successor after the endpoint delay. The holder serves
// meanwhile, for a bounded time.
func TestHolderServesUntilNoConnectionReachesSuccessor(t *testing.T) {
	for name, c := range map[string]struct {
		facts       Facts
		offers      api.Words
		late        time.Duration
		least, most time.Duration
	}{
		"a late node":                    {Facts{Cause: Yield}, two, time.Second, delay + time.Second, delay + time.Second},
		"a named pod":                    {Facts{Cause: Yield, Successor: "c"}, two, time.Second, delay + time.Second, delay + time.Second},
		"clients of the pod's address":   {Facts{Cause: Yield}, two, time.Hour, delay + Patience, delay + Patience},
		"the successor was never Ready":  {Facts{Cause: Turn, Successor: "n"}, three, time.Hour, delay, delay},
		"a deletion":                     {Facts{Cause: Deletion, Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, two, time.Hour, delay + Patience, delay + Patience},
		"a deletion with a short grace":  {Facts{Cause: Deletion, Grace: Grace{Known: true, Deleted: true, Ends: began + 6*time.Second}}, two, time.Hour, delay, 3 * time.Second},
		"a deletion without a successor": {Facts{Cause: Deletion, Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, one, time.Hour, Another + delay, Another + delay},
	} {
		t.Run(name, func(t *testing.T) {
			p := play{facts: c.facts, offers: c.offers, late: c.late}
			p.facts.EndpointDelay = delay
			took := p.run(t)
			assert.True(t, p.last.Out)
			assert.GreaterOrEqual(t, took, c.least)
			assert.LessOrEqual(t, took, c.most+Passing+6*written)
		})
	}
}

// A standby that is still to let new connections wait would forward them to an application that stops.
func TestHolderStopsOnceAllStandbysArePrepared(t *testing.T) {
	more := api.Words{{Identity: "b", Say: api.Either}, {Identity: "c", Say: api.Stays}, {Identity: "d", Say: api.Stays}}
	for name, c := range map[string]struct {
		offers      api.Words
		hears, slow time.Duration
		least, most time.Duration
	}{
		"at once":                       {two, 0, 0, Accepting, Accepting},
		"late":                          {two, 25 * time.Millisecond, 0, 25 * time.Millisecond, 30 * time.Millisecond},
		"never":                         {two, time.Hour, 0, Passing, slower * (written + tick)},
		"never, and the server is slow": {two, time.Hour, 300 * time.Millisecond, slower * 300 * time.Millisecond, slower * 305 * time.Millisecond},
		"at once, further standbys":     {more, 0, 0, Passing, Passing},
	} {
		t.Run(name, func(t *testing.T) {
			p := play{offers: c.offers, hears: c.hears, slow: c.slow, facts: Facts{Cause: Yield, EndpointDelay: delay}}
			took := p.run(t) - p.held
			require.NotZero(t, p.out)
			assert.GreaterOrEqual(t, p.held, p.out+delay, "the standbys hold connections only then")
			assert.GreaterOrEqual(t, took, c.least-tick)
			assert.LessOrEqual(t, took, c.most+max(c.slow, written)+2*tick)
		})
	}
}

func TestSuccessorIsPreparedOnceConnectionsStopArriving(t *testing.T) {
	assert.Equal(t, began+delay, PreparedAt(began, began, delay), "an early connection")
	assert.Equal(t, began+delay+delay/2, PreparedAt(began, began+delay, delay), "a late connection")
	assert.Equal(t, began+delay, PreparedAt(began, began-math.MaxInt64, delay), "no connection")
}

// A preStop hook begins once the kubelet stops the pod. The application serves during the hook.
func TestPreStopHookProlongsTheLeave(t *testing.T) {
	for name, c := range map[string]struct {
		hook, grace, delay time.Duration
		least, most        time.Duration
	}{
		"shorter than the delay":      {time.Second, 30 * time.Second, delay, delay, delay + Passing + 4*written},
		"longer than the delay":       {20 * time.Second, time.Minute, delay, 20*time.Second + Accepting, 20*time.Second + Passing + 2*written},
		"longer than half the grace":  {20 * time.Second, 30 * time.Second, delay, 20*time.Second + Accepting, 20*time.Second + Passing + 2*written},
		"most of the grace":           {29960 * time.Millisecond, 30 * time.Second, delay, 29960 * time.Millisecond, 29980 * time.Millisecond},
		"hangs":                       {time.Hour, 30 * time.Second, delay, 30 * time.Second, 30 * time.Second},
		"the delay exceeds the grace": {10 * time.Second, 30 * time.Second, time.Hour, 20 * time.Second, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := play{offers: two, hook: c.hook, facts: Facts{
				Cause: Deletion, EndpointDelay: c.delay, Grace: Grace{Known: true, Deleted: true, Ends: began + c.grace},
			}}
			took := p.run(t)
			assert.GreaterOrEqual(t, took, c.least)
			assert.LessOrEqual(t, took, c.most+2*tick)
			if p.held != 0 {
				assert.GreaterOrEqual(t, p.held, c.hook, "the application serves while the hook runs")
			}
		})
	}
}

func TestHolderLeavesWithinABoundedTime(t *testing.T) {
	for name, c := range map[string]struct {
		play play
		most time.Duration
	}{
		"no write is stored": {play{mute: true, facts: Facts{Cause: Yield, EndpointDelay: delay}, offers: none}, Stored + Answers},
		"only offers arrive": {play{mute: true, facts: Facts{Cause: Yield, EndpointDelay: delay}, offers: two}, delay + 2*Stored + Passing},
		"the API server does not tell of the deletion": {
			play{facts: Facts{Cause: Deletion, EndpointDelay: delay}, offers: two}, Another + 2*written},
		"the grace is short": {
			play{facts: Facts{Cause: Deletion, EndpointDelay: delay, Grace: Grace{Known: true, Deleted: true, Ends: began + 2*time.Second}}, offers: two}, time.Second},
		"the delay is longer than the grace": {
			play{facts: Facts{Cause: Deletion, EndpointDelay: time.Minute, Grace: Grace{Known: true, Deleted: true, Ends: began + 30*time.Second}}, offers: two}, 15 * time.Second},
		"the grace is over": {
			play{facts: Facts{Cause: Deletion, EndpointDelay: delay, Grace: Grace{Known: true, Deleted: true, Ends: began}}, offers: none}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			assert.LessOrEqual(t, c.play.run(t), c.most+tick)
		})
	}
}

// A standby needs a read and a write for an offer. So the offer comes late if the API server is
// slow.
func TestSlowAPIServerProlongsTheWaitForAnswers(t *testing.T) {
	const slow = 400 * time.Millisecond
	p := play{slow: slow, after: 3*slow + Spread, offers: two, facts: Facts{Cause: Yield, EndpointDelay: delay}}
	took := p.run(t)
	assert.True(t, p.last.Out)
	assert.GreaterOrEqual(t, took, p.after+slow+delay+2*slow, "the standbys hear that late, too")
	p = play{slow: slow, offers: none, facts: Facts{Cause: Yield, EndpointDelay: delay}}
	assert.LessOrEqual(t, p.run(t), slow+slower*slow+10*tick)
	p = play{slow: 2 * time.Second, offers: none, facts: Facts{Cause: Yield, EndpointDelay: delay}}
	assert.LessOrEqual(t, p.run(t), 2*time.Second+Stored+10*tick)

	// An answer that the hold needs may take longer still, because the application goes on meanwhile.
	var l Leave
	f := Facts{Cause: Turn, Successor: "n", Serving: true}
	f.Says = l.Next(began, f).Says
	stored := began + 1500*time.Millisecond
	assert.Equal(t, stored+slower*1500*time.Millisecond, l.Next(stored, f).Wake)
}

func TestHolderBecomesReadyIfNewerRevisionStopsAsking(t *testing.T) {
	var l Leave
	f := Facts{Cause: Turn, Successor: "n", EndpointDelay: delay, Ready: true, Serving: true, Answers: three}
	assert.Equal(t, Decision{Wake: pace.Never}, l.Next(began, Facts{}))
	got := l.Next(began, f)
	assert.True(t, got.Out)
	assert.Equal(t, "n", got.Says)
	assert.Equal(t, Decision{Wake: pace.Never}, l.Next(began+time.Second, Facts{Ready: true}), "the asker is gone")
	got = l.Next(began+time.Minute, f)
	assert.True(t, got.Over, "a hold leaves once")
	assert.False(t, got.Out)
	assert.Equal(t, "n", got.Successor, "it has answered again")
}

// The holder has given up an end to which a pod has answered, or that needed no answer. The next successor is
// dead, so its wish ends nothing.
func TestAnswerToAnEndGivenUpEndsNoHold(t *testing.T) {
	stay := api.Words{{Identity: "b", Say: api.Stays}}
	for name, c := range map[string]struct {
		begun Facts
		pause bool
		next  Facts
	}{
		"after a pause":                 {Facts{Cause: Turn, Successor: "n", Answers: three}, true, Facts{Cause: Turn, Successor: "n"}},
		"another wish comes first":      {Facts{Cause: Turn, Successor: "n", Answers: three}, false, Facts{Cause: Turn, Successor: "x"}},
		"a person takes a yield back":   {Facts{Cause: Yield, Successor: "n", Answers: stay}, false, Facts{Cause: Turn, Successor: "n"}},
		"only forwarders have answered": {Facts{Cause: Turn, Successor: "n", Answers: api.Words{{Identity: "b", Say: api.Prepared}}}, false, Facts{Cause: Hang}},
	} {
		t.Run(name, func(t *testing.T) {
			var l Leave
			f := c.begun
			f.EndpointDelay, f.Ready, f.Serving = delay, true, true
			said := l.Next(began, f).Says
			require.NotEmpty(t, said)
			if c.pause {
				l.Next(began+time.Second, Facts{Ready: true})
			}
			c.next.EndpointDelay, c.next.Ready, c.next.Serving = delay, true, true
			at, withdrawn := began+time.Second, c.pause
			for ; at < began+time.Minute; at += tick {
				got := l.Next(at, c.next)
				assert.False(t, got.Out || got.Over, "%+v", got)
				withdrawn = withdrawn || got.Says == ""
				assert.True(t, withdrawn, "the next announcement is a new one")
				c.next.Says = got.Says
			}
		})
	}
}

func TestHolderAbandonsLeaveIfOnlyAContainerRestarts(t *testing.T) {
	turn := Facts{Cause: Turn, Successor: "n", EndpointDelay: delay, Ready: true, Serving: true, Answers: three}
	unoffered := turn
	unoffered.Answers = none
	for name, c := range map[string]struct {
		begun Facts
		stage stage
		after []time.Duration
	}{
		"no leave": {Facts{}, before, []time.Duration{0}},
		"awaiting": {unoffered, awaiting, []time.Duration{0}},
		"leaving":  {turn, leaving, []time.Duration{0, time.Second}},
		"closing":  {turn, closing, []time.Duration{0, time.Minute}},
		"left":     {turn, left, []time.Duration{0, time.Minute, 2 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			var l Leave
			at := began
			for _, after := range c.after {
				at = began + after
				l.Next(at, c.begun)
			}
			require.Equal(t, c.stage, l.stage)
			unknown, known := turn, turn
			unknown.Cause, unknown.Successor, unknown.Answers = Deletion, "", none
			known.Cause, known.Successor, known.Known = None, "", true
			l.Next(at, unknown)
			assert.Equal(t, Decision{Wake: pace.Never}, l.Next(at+written, known), "the application goes on")
			assert.Equal(t, Decision{Wake: pace.Never}, l.Next(at+time.Hour, Facts{EndpointDelay: delay, Ready: true}))
		})
	}
}

func TestLeaveForATurnContinuesDespiteContainerRestart(t *testing.T) {
	var l Leave
	f := Facts{Cause: Turn, Successor: "n", EndpointDelay: delay, Ready: true, Serving: true, Answers: three}
	l.Next(began, f)
	signalled := f
	signalled.Cause = Deletion
	l.Next(began+written, signalled)
	f.Known, f.Says, f.Unready = true, "n", true
	got := l.Next(began+2*written, f)
	assert.True(t, got.Out)
	assert.False(t, got.Over, "the holder serves for the delay")
	assert.Equal(t, "n", got.Successor)
	l.Next(began+2*written+delay, f)
	assert.True(t, l.Next(began+time.Minute, f).Over)
}

// A candidate dies between its wish and the end, or nobody can take the slot of an application that hangs.
func TestHoldGoesOnUnlessItsSuccessorAnswers(t *testing.T) {
	for name, f := range map[string]Facts{
		"turn":                              {Cause: Turn, Successor: "n", EndpointDelay: delay, Ready: true, Answers: two},
		"turn without ports":                {Cause: Turn, Successor: "n", Answers: two},
		"turn, an earlier end was given up": {Cause: Turn, Successor: "n", EndpointDelay: delay, Ready: true},
		"hang":                              {Cause: Hang, EndpointDelay: delay, Answers: api.Words{{Identity: "b", Say: api.Stays}}},
	} {
		t.Run(name, func(t *testing.T) {
			var l Leave
			f.Serving = true
			if strings.Contains(name, "earlier") {
				l.enter(stays, began)
			}
			got := l.Next(began, f)
			require.Equal(t, api.LeavingSoon, strings.TrimSuffix(got.Says, ":n"))
			f.Says = got.Says
			got = l.Next(began+written, f)
			require.Equal(t, began+written+Another, got.Wake)
			assert.False(t, got.Over || got.Out || got.Withdrawn)
			got = l.Next(got.Wake, f)
			assert.Equal(t, Decision{Withdrawn: true, Wake: pace.Never}, got)

			again := l.Next(began+time.Minute, f)
			assert.Equal(t, f.Says, again.Says, "the next announcement")
			f.Answers = append(f.Answers, asked...)
			got = l.Next(began+time.Minute+written, f)
			assert.True(t, got.Answered)
			assert.Equal(t, "n", got.Successor)
		})
	}
}

func TestUnreadyHolderStopsWithoutALeave(t *testing.T) {
	var l Leave
	got := l.Next(began, Facts{Cause: Yield, EndpointDelay: delay, Answers: two})
	assert.Equal(t, Decision{Over: true, Wake: pace.Never}, got)
}

// A person has requested a yield. While the holder leaves, the kubelet signals the pod, and the API server
// does not answer whether the pod is being deleted.
func TestUnknownGraceKeepsHookedHolderServing(t *testing.T) {
	var l Leave
	f := Facts{Cause: Yield, EndpointDelay: 2 * time.Second, Ready: true, Serving: true, Answers: api.Words{{Identity: "b_u", Say: api.Either}, {Identity: "c_u", Say: api.Stays}}}
	require.True(t, l.Next(time.Second, f).Out)
	f.Cause, f.PreStop = Deletion, true
	got := l.Next(time.Minute, f)
	assert.False(t, got.Closed, "the application serves during the hook")
	f.PreStop = false
	l.Next(61*time.Second, f)
	assert.True(t, l.Next(2*time.Minute, f).Closed)
}

// The answers after the holder has named its successor "b" do not show that all standbys let connections wait: in
// the stage "leaving" the application stops serving for a moment, so a standby is prepared and then forwards again,
// or another program overwrites the next Lease.
func TestHolderAwaitsStandbysThatItDoesNotKnow(t *testing.T) {
	prepared := api.Words{{Identity: "b", Say: api.Prepared}, {Identity: "c", Say: api.Prepared}}
	for name, c := range map[string]struct {
		serves  bool
		answers api.Words
		wait    time.Duration
	}{
		"the application serves throughout":  {true, prepared, Accepting},
		"the application fails for a moment": {false, prepared, Passing},
		"all answers are lost":               {true, none, Passing},
		"only the successor's answer stays":  {true, prepared[:1], Passing},
	} {
		t.Run(name, func(t *testing.T) {
			var l Leave
			f := Facts{Cause: Yield, EndpointDelay: delay, Ready: true, Serving: true, Answers: two}
			require.Equal(t, "b", l.Next(began, f).Says)
			f.Says, f.Unready = "b", true
			l.Next(began+tick, f)
			f.Serving = c.serves
			l.Next(began+2*tick, f)
			f.Serving, f.Answers = true, c.answers
			closes := began + tick + delay
			require.True(t, l.Next(closes, f).Closed)
			f.Serving = false
			assert.Equal(t, closes+tick+c.wait, l.Next(closes+tick, f).Wake)
		})
	}
}

func TestOnlyARestartWithdrawsTheKubeletsSignal(t *testing.T) {
	var l Leave
	f := Facts{Cause: Deletion, EndpointDelay: delay, Ready: true, Serving: true}
	require.Equal(t, api.LeavingSoon, l.Next(began, f).Says)
	f.Cause = None
	assert.Equal(t, api.LeavingSoon, l.Next(began+tick, f).Says)
	f.Grace = Grace{Known: true}
	assert.Empty(t, l.Next(began+2*tick, f).Says)
}
