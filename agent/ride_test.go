// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// failsafe lets the application survive an outage of the API server of ten minutes.
func failsafe(c *Config) { c.Failsafe = api.Failsafe{Outage: 10 * time.Minute, Alone: true} }

// outages are the ways in which an API server stores nothing.
var outages = map[string]func(l *link){
	"no answer":     func(l *link) { l.cut = true },
	"writes fail":   func(l *link) { l.broken = theSlot },
	"slow writes":   func(l *link) { l.slow = 8 * time.Second },
	"nothing works": func(l *link) { l.refuse = &kube.StatusError{Code: 503} },
}

// mended ends every outage.
func mended(l *link) { l.cut, l.broken, l.slow, l.refuse = false, "", 0, nil }

// In an outage the application runs on, and starts again in the same hold if it exits.
func TestApplicationSurvivesAnOutage(t *testing.T) {
	for name, begin := range outages {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			a := w.hold(failsafe)
			hold, stated := a.gates.hold("s1"), w.server.lease(theSlot).DurationSeconds
			assert.Equal(t, 750, stated, "a sixth of the Lease is margin, and 25 s are for the renewals and the stop")
			w.pass(time.Minute)
			a.link.set(begin)
			w.pass(5 * time.Minute)
			assert.True(t, a.running("s1"))
			a.gates.fail("s1")
			w.pass(10 * time.Second) // the kubelet starts the container again
			a.connect("s2")
			w.within(time.Second, "the application runs again", func() bool { return a.running("s2") })
			assert.Equal(t, hold, a.gates.hold("s2"))
			w.pass(4*time.Minute + 50*time.Second)
			assert.True(t, a.running("s2"))
			a.link.set(mended)
			w.pass(time.Minute)
			assert.True(t, a.running("s2"))
			assert.Empty(t, a.gates.told(), "no order to stop")
			assert.Equal(t, hold, w.holdID())
		}))
	}
}

// seenLog keeps the lines of a log. The log of cmd/agent drops repetitions of lines of the level Debug.
type seenLog struct {
	slog.Handler
	mu    sync.Mutex
	lines []slog.Record
}

func (l *seenLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *seenLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r)
	return nil
}

// take returns the messages of the lines so far, without repetitions of those of the level Debug, and forgets the lines.
func (l *seenLog) take() (messages []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.lines {
		if r.Level > slog.LevelDebug || !slices.Contains(messages, r.Message) {
			messages = append(messages, r.Message)
		}
	}
	l.lines = nil
	return messages
}

func TestOutageOfTheAPIServerCausesFewLinesInTheLog(t *testing.T) {
	for name, begin := range outages {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			logs := map[string]*seenLog{"a": {Handler: slog.DiscardHandler}, "b": {Handler: slog.DiscardHandler}}
			w.free(theSlot, nextLease)
			logged := func(c *Config) { c.Log = slog.New(logs[c.PodName]) }
			a := w.up("a", failsafe, of(oldRevision), logged)
			w.within(time.Second, "the pod runs", a.runs)
			b := w.start("b", failsafe, of(newRevision), logged)
			w.pass(time.Minute)
			logs["a"].take()
			a.link.set(begin)
			b.link.set(begin)
			b.connect("b") // it cannot wish for its turn
			w.pass(5 * time.Minute)
			for pod, log := range logs {
				lines := log.take()
				assert.LessOrEqual(t, len(lines), 10, "%s %q", pod, lines)
			}
			a.link.set(mended)
			w.pass(5 * time.Second)
			assert.Contains(t, logs["a"].take(), "renewed again")
		}))
	}
}

// The outage is longer than the annotation says. So the application stops before another pod can take the
// slot, and runs again only under a stored acquisition.
func TestApplicationStopsAfterALongerOutage(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.hold(failsafe)
		w.pass(time.Minute)
		a.link.set(func(l *link) { l.cut = true })
		w.pass(10 * time.Minute)
		assert.True(t, a.running("s1"))
		took := w.within(time.Minute, "the application stops", a.stopped)
		assert.InDelta(t, 13, took.Seconds(), 5, "15 s are left, less what has passed since the last renewal")
		assert.Contains(t, a.gates.told(), ends.CutOff.Reason)
		a.gates.fail("s1")
		a.connect("s2")
		w.pass(time.Hour)
		assert.False(t, a.running("s2"), "nothing starts without a stored write")
	})
}

// An application that exits releases the slot, once the API server has answered.
func TestExitReleasesTheSlotAfterARenewal(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.hold(failsafe)
		b := w.start("b", failsafe)
		b.connect("s9")
		w.pass(6 * time.Second)
		writes := a.link.sent("put")
		a.gates.fail("s1")
		w.within(200*time.Millisecond, "b runs", func() bool { return b.running("s9") })
		assert.Equal(t, 2, a.link.sent("put")-writes, "the renewal and the release")
	})
}

// In an outage no other pod could take the slot, so a planned end waits.
func TestYieldWaitsForTheEndOfAnOutage(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.hold(failsafe)
		w.pass(time.Minute)
		a.link.set(func(l *link) { l.cut = true })
		w.pass(time.Minute)
		a.agent.Yield()
		w.pass(time.Minute)
		assert.True(t, a.running("s1"))
		a.link.set(mended)
		w.within(15*time.Second, "the application yields", a.stopped)
	})
}

// No container of a pod that ends starts again, so the release waits for nothing.
func TestStoppedAgentReleasesWithoutARenewal(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.hold(failsafe)
		w.pass(6 * time.Second)
		writes := a.link.sent("put")
		close(a.stop)
		synctest.Wait()
		a.gates.fail("s1")
		w.within(200*time.Millisecond, "the slot is free", func() bool { return w.holder() == "" })
		assert.Equal(t, 1, a.link.sent("put")-writes, "the release")
	})
}

// A hold ends, and nothing proves the death of its child. So the Lease must expire: the wait of the planned end
// for a renewal is over.
func TestEndWithoutProofIsNotRenewedForEver(t *testing.T) {
	for name, c := range map[string]struct{ ends func(w *world, a *pod) }{
		"the shim's connection breaks in the drain": {func(w *world, a *pod) {
			a.gates.shims["s1"].stuck = true
			a.agent.Yield()
			w.within(time.Second, "the child drains", func() bool { return a.gates.phase("s1") == gate.Draining })
			a.gates.report("s1", func(r *gate.Report) { r.Connected = false })
		}},
		"another container is unknown to a new agent": {func(w *world, a *pod) {
			a.kill()
			b := w.start("a", func(c *Config) { c.Containers = []string{"app", "other"} })
			b.gates.connect(b.gates.shim("s1").report)
			w.pass(time.Second)
			b.gates.fail("s1")
		}},
	} {
		t.Run(name, simulated(func(_ *testing.T, w *world) {
			a := w.hold(failsafe)
			b := w.start("b", failsafe)
			b.connect("s9")
			w.pass(6 * time.Second)
			c.ends(w, a)
			w.within(12*time.Minute+31*time.Second, "b runs", func() bool { return b.running("s9") })
		}))
	}
}

// A holder with a long duration in its Lease renews as often as without it. So a standby whose watch shows no
// renewal suspects the watch as soon, and then sees the release.
func TestStandbyOfAFailsafeNoticesAReleaseDespiteAMuteWatch(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair(failsafe)
		b.link.set(func(l *link) { l.mute = true })
		w.pass(8 * time.Second)
		close(a.stop)
		a.gates.fail("s1")
		w.within(11*time.Second, "b runs", func() bool { return b.running("s2") })
	})
}

// After an outage the holder of an expired Lease has a head start, and its requests take as long as without the
// annotation. So the head start is as short.
func TestHeadStartAfterAnOutageIsAsShortWithFailsafe(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair(failsafe)
		a.kill()
		b.link.set(func(l *link) { l.cut = true })
		w.pass(13 * time.Minute)
		b.link.set(mended)
		w.within(11*time.Second, "b runs", func() bool { return b.running("s2") })
	})
}

// A disk that is full for a moment ends no hold in an outage, in which the pod could not take the slot again.
func TestApplicationStartsInAnOutageOnceTheDiskRecovers(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.hold(failsafe)
		w.pass(time.Minute)
		a.link.set(func(l *link) { l.cut = true })
		full := func(full bool) {
			a.gates.mu.Lock()
			defer a.gates.mu.Unlock()
			a.gates.broken = full
		}
		full(true)
		a.gates.fail("s1")
		a.connect("s2")
		w.pass(20 * time.Second)
		full(false)
		w.within(2*time.Second, "the application runs again", func() bool { return a.running("s2") })
	})
}

// Without the annotation, an outage stops the application as ever.
func TestWithoutFailsafeAnOutageStopsTheApplication(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.hold()
		w.pass(time.Minute)
		a.link.set(func(l *link) { l.cut = true })
		w.within(30*time.Second, "the application stops", a.stopped)
	})
}
