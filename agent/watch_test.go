// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// watching counts the open watches of Leases.
func (w *world) watching() (n int) {
	w.server.Do(func() {
		for _, l := range w.server.links {
			for _, stream := range l.Watches() {
				if !stream.Ended {
					n++
				}
			}
		}
	})
	return n
}

// breaks ends all watches.
func (w *world) breaks() { w.server.Do(w.server.Watches.Cut) }

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
		t.Run(name, simulated(func(t *testing.T, w *world) {
			long := func(c *Config) { c.LeaseDuration = 3 * time.Minute } // such a Lease is renewed every 30 s
			a := stubborn(w, long)
			w.pass(time.Second)
			c.before(w, a)
			a = w.pods["a"]
			w.edit(func(l *kube.Lease) { l.Holder = "b_u" })
			w.within(10*time.Millisecond, "child is dead", a.stopped)
		}))
	}
}

// A proxy can end each watch without an error before any event has come. For example, a proxy that
// cannot stream answers each watch with the status 200 and an empty body. A watch can also stay open
// although no event arrives any more, if a proxy keeps the connection of an API server that has
// vanished.
func TestStandbyNoticesAReleaseDespiteBrokenWatches(t *testing.T) {
	empty := func(idle time.Duration) func(b *pod) { return func(b *pod) { b.emptyWatches(idle) } }
	for _, lasts := range []time.Duration{30 * time.Second, 10 * time.Minute, time.Hour} {
		silence := min(lasts/3, 5*time.Minute)
		for name, c := range map[string]struct {
			breaks func(b *pod)
			most   time.Duration
		}{
			"empty":                    {empty(1), min(10*time.Second, lasts/6)},
			"empty after some seconds": {empty(15 * time.Second), silence + 15*time.Second},
			"mute":                     {func(b *pod) { b.link.set(func(l *link) { l.mute = true }) }, silence},
		} {
			t.Run(fmt.Sprint(name, ", ", lasts), simulated(func(t *testing.T, w *world) {
				w.free(theSlot)
				a, b := w.pair(func(c *Config) { c.LeaseDuration = lasts })
				c.breaks(b)
				w.pass(lasts/6 + lasts/12)
				close(a.stop)
				a.gates.end("s1")
				w.within(c.most+time.Second, "the standby's child runs", func() bool { return b.running("s2") })
				b.kill()
				w.pass(lasts) // until the deadline of the child
			}))
		}
	}
}

// emptyWatches ends the pod's watches. Each later watch ends after the given time, without an error
// and without an event.
func (p *pod) emptyWatches(idle time.Duration) {
	p.link.set(func(l *link) { l.cut, l.mute, l.idle, l.orderly = true, true, idle, true })
	p.link.set(func(l *link) { l.cut = false })
}

func TestStandbyNoticesAResumedSlotDespiteEmptyWatches(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		w.annotate(theSlot, api.PausedAnnotation, string(api.PauseHold))
		p := w.start("a")
		p.connect("s1")
		w.pass(time.Second)
		p.emptyWatches(1)
		w.pass(time.Minute)
		w.annotate(theSlot, api.PausedAnnotation, "")
		w.within(11*time.Second, "the child runs", func() bool { return p.running("s1") })
	})
}

// goneOnce is a link whose proxy answers 410 to a read of the slot's Lease, after the field "gone"
// was set.
type goneOnce struct {
	*link
	gone atomic.Bool
}

func (c *goneOnce) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	if name == theSlot && c.gone.CompareAndSwap(true, false) {
		return nil, &kube.StatusError{Code: 410}
	}
	return c.link.GetLease(ctx, name)
}

// The answer 410 to a read says nothing about the versions of the Lease. If the standby then watched
// without a read, the standby would take the slot only after hours.
func TestStandbyReadsAgainAfterGone(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.hold()
		var c *goneOnce
		b := w.start("b", func(cf *Config) { c = &goneOnce{link: cf.API.(*link)}; cf.API = c })
		b.connect("s2")
		w.pass(time.Minute)
		c.gone.Store(true)
		b.link.set(func(l *link) { l.refuse = errors.New("connection reset") }) // the watches break
		b.link.set(func(l *link) { l.refuse = nil })
		w.pass(time.Minute)
		assert.False(t, c.gone.Load(), "the standby has read the Lease again")
		a.gates.end("s1")
		w.within(time.Minute, "standby runs", func() bool { return b.running("s2") })
	})
}

func (w *world) begun() int { return len(w.server.Requests("watch")) }

func TestHolderNeverBeginsWatchWhileItCannotRenew(t *testing.T) {
	simulate(t, func(w *world) {
		a := settled(w)
		watches := w.begun()
		a.link.set(func(l *link) { l.refuse = errors.New("refused") })
		w.pass(7 * time.Second) // by now a renewal has been due for longer than Budget.Retry
		tried := a.sent("get")
		w.pass(4 * time.Second)
		assert.Equal(t, tried, a.sent("get"))
		a.link.set(func(l *link) { l.refuse = nil })
		w.within(3*time.Second, "watched again", func() bool { return w.watching() == 1 })
		assert.Equal(t, watches+1, w.begun())
		assert.Equal(t, gate.Running, a.gates.phase("s1"))
	})
}

// watchLog notes the instants at which a pod's watches begin and end.
type watchLog struct {
	*link
	mu           sync.Mutex
	begun, ended []time.Time
}

func (l *watchLog) note(times *[]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*times = append(*times, time.Now())
}

// after returns the times that lie after the instant "from".
func (l *watchLog) after(from time.Time, times *[]time.Time) (later []time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range *times {
		if at.After(from) {
			later = append(later, at)
		}
	}
	return later
}

func (l *watchLog) WatchLease(ctx context.Context, name, v string, fn func(kube.WatchEvent)) error {
	l.note(&l.begun)
	defer l.note(&l.ended)
	return l.link.WatchLease(ctx, name, v, fn)
}

// The API server does work for each watch that begins or ends. In the middle of a handover this
// work would delay the writes, and the start of the application.
func TestApplicationStartsBeforeWatchesOfHandover(t *testing.T) {
	simulate(t, func(w *world) {
		logs := map[string]*watchLog{}
		s := w.serve(2, func(c *Config) {
			logs[c.PodName] = &watchLog{link: c.API.(*link)}
			c.API = logs[c.PodName]
		})
		s.holder.agent.Yield()
		next, _ := s.follower()
		before := time.Now()
		w.within(5*time.Second, "the next holder runs", func() bool { return next.running(next.shimOf()) })
		old, following := logs[s.holder.config.PodName], logs[next.config.PodName]
		assert.Empty(t, old.after(before, &old.ended), "the old holder's watches go on")
		assert.Empty(t, following.after(before, &following.begun), "the new holder begins no watch yet")
		w.pass(time.Second)
		assert.Len(t, old.after(before, &old.ended), 2, "the watches of the slot and of the asks")
		assert.Len(t, following.after(before, &following.begun), 1, "the watch of the asks")
	})
}

// An agent behind a policy without egress can tell nobody else.
func TestApplicationsLogSaysThatTheAgentReadsNoLease(t *testing.T) {
	for name, change := range map[string]func(l *link){
		"no egress": func(l *link) { l.cut = true },
		"no right":  func(l *link) { l.refuse = &kube.StatusError{Code: 403} },
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a := w.start("a", func(c *Config) { w.pods["a"].link.set(change) })
			a.connect("s1")
			w.pass(unheardAfter - time.Second)
			assert.Empty(t, a.gates.noticed())
			w.pass(2 * time.Second)
			assert.Equal(t, []string{"s1: " + unheard}, a.gates.noticed())
			w.pass(time.Hour)
			assert.Len(t, a.gates.noticed(), 1, "once")
			a.link.set(mended)
			w.within(time.Minute, "the child runs", func() bool { return a.running("s1") })
		}))
	}
	t.Run("a Lease was read", simulated(func(t *testing.T, w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "b_u", DurationSeconds: 3600})
		a := w.start("a")
		a.connect("s1")
		w.pass(time.Second)
		a.link.set(func(l *link) { l.cut = true })
		w.pass(time.Minute)
		assert.Empty(t, a.gates.noticed())
	}))
}
