// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// watching counts the open watches of Leases.
func (w *world) watching() int {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return len(w.server.watchers)
}

// readings returns the number of reads of Leases so far.
func (w *world) readings() int {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return w.server.reads
}

func (w *world) begun() int {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return w.server.watches
}

// sends makes the API server send the event to all watches.
func (w *world) sends(e kube.WatchEvent) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	for one := range w.server.watchers {
		one.events <- e
	}
}

// breaks ends all watches.
func (w *world) breaks() {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	for one := range w.server.watchers {
		close(one.ended)
		delete(w.server.watchers, one)
	}
}

func TestHolderNoticesALostSlotBeforeNextRenewal(t *testing.T) {
	for name, c := range map[string]struct{ before func(w *world, a *pod) }{
		"by the watch that it had": {func(*world, *pod) {}},
		"by a watch that was begun anew": {func(w *world, _ *pod) {
			w.breaks()
			w.within(2*time.Second, "watched again", func() bool { return w.watching() == 1 })
		}},
		"by a watch of a new agent": {func(w *world, a *pod) {
			a.kill()
			b := w.start("a")
			b.gates.connect(b.gates.shim("s1").report)
			w.pass(time.Second)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				long := func(c *Config) { c.LeaseDuration = 3 * time.Minute } // such a Lease is renewed every 30 s
				a := stubborn(w, long)
				w.pass(time.Second)
				c.before(w, a)
				a = w.pods["a"]
				w.edit(func(l *kube.Lease) { l.Holder = "b_u" })
				w.within(10*time.Millisecond, "child is dead", a.stopped)
			})
		})
	}
}

func TestStaleWatchEventMakesHolderReadLeaseOnce(t *testing.T) {
	simulate(t, func(w *world) {
		a := settled(w)
		old := w.server.lease(theSlot)
		old.Holder = "before_u"
		for _, e := range []kube.WatchEvent{{Type: kube.Modified, Lease: &old}, {Type: kube.Deleted, Lease: &old}} {
			before := w.readings()
			w.sends(e)
			w.pass(time.Second)
			assert.Equal(t, before+1, w.readings())
		}
		assert.True(t, a.running("s1"))
		before := w.readings()
		w.pass(time.Minute)
		assert.Equal(t, before, w.readings())
	})
}

func TestHolderNeverBeginsWatchWhileItCannotRenew(t *testing.T) {
	simulate(t, func(w *world) {
		a := settled(w)
		watches := w.begun()
		a.link.set(func(l *link) { l.refuse = errors.New("refused") })
		w.pass(7 * time.Second) // by now a renewal has been due for longer than Budget.Retry
		tried := 0
		a.link.set(func(l *link) { tried = l.gets })
		w.pass(4 * time.Second)
		a.link.set(func(l *link) { assert.Equal(t, tried, l.gets) })
		a.link.set(func(l *link) { l.refuse = nil })
		w.within(3*time.Second, "watched again", func() bool { return w.watching() == 1 })
		assert.Equal(t, watches+1, w.begun())
		assert.Equal(t, gate.Running, a.gates.phase("s1"))
	})
}
