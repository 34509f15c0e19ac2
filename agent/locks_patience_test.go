// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

var first = func(c *Config) { c.Slots = []string{"lock.a"} }

// Pod x claims two locks, and cannot acquire the second lock. Pod y claims only the first lock,
// and must run nevertheless.
func TestPodThatCannotAcquireBothLocksKeepsNeither(t *testing.T) {
	for name, c := range map[string]struct {
		keep   func(w *world, x *pod)
		within time.Duration
	}{
		"held by another for long": {within: time.Second, keep: func(w *world, _ *pod) {
			z := w.start("z", func(c *Config) { c.Slots = []string{"lock.b"} })
			z.connect("s3")
			w.within(time.Second, "z runs", func() bool { return z.running("s3") })
		}},
		"not there":     {within: time.Second, keep: func(w *world, _ *pod) { w.server.remove("lock.b") }},
		"not readable":  {within: time.Second, keep: func(_ *world, x *pod) { x.link.set(func(l *link) { l.hidden = "lock.b" }) }},
		"not writeable": {within: 31 * time.Second, keep: func(_ *world, x *pod) { x.link.set(func(l *link) { l.broken = "lock.b" }) }},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free("lock.a", "lock.b")
				x := w.start("x", both, func(*Config) { c.keep(w, w.pods["x"]) }) // c.keep runs before pod x sends its first request
				x.connect("s1")
				w.pass(time.Second)
				y := w.start("y", first)
				y.connect("s2")
				w.within(c.within, "y runs", func() bool { return y.running("s2") })
				w.pass(10 * time.Minute)
				assert.True(t, y.running("s2"))
				assert.Empty(t, x.gates.given())
			})
		})
	}
}

func TestPodTakesNoLockBeforeAllAreFree(t *testing.T) {
	simulate(t, func(w *world) {
		w.free("lock.a", "lock.b")
		z := w.start("z", func(c *Config) { c.Slots = []string{"lock.b"} })
		z.connect("s3")
		w.within(time.Second, "z runs", func() bool { return z.running("s3") })
		untouched := w.server.lease("lock.a").ResourceVersion
		pods := []*pod{w.start("x", both), w.start("y", both)}
		for _, p := range pods {
			p.connect("s")
		}
		w.pass(5 * time.Minute)
		assert.Equal(t, untouched, w.server.lease("lock.a").ResourceVersion, "nothing is taken in vain")
		z.gates.end("s3")
		w.within(time.Second, "one runs", func() bool { return pods[0].running("s") || pods[1].running("s") })
		w.pass(time.Minute)
		assert.NotEqual(t, pods[0].running("s"), pods[1].running("s"))
	})
}

func TestPodTakesNeitherLockUntilSecondLeaseExpires(t *testing.T) {
	simulate(t, func(w *world) {
		w.free("lock.a")
		w.server.put(&kube.Lease{Name: "lock.b", Holder: "vanished", DurationSeconds: 120})
		x := w.start("x", both)
		x.connect("s1")
		w.pass(time.Minute)
		assert.Empty(t, w.server.lease("lock.a").Holder)
		w.within(61*time.Second, "x runs", func() bool { return x.running("s1") })
	})
}

// Without watches, an agent sees a Lease only for the moment after a read. So the agent never sees
// both locks at one instant, but must acquire both all the same.
func TestPodWithTwoLocksAcquiresBothWithoutWatches(t *testing.T) {
	simulate(t, func(w *world) {
		w.free("lock.a", "lock.b")
		z := w.start("z", both)
		z.connect("s3")
		w.within(time.Second, "z runs", func() bool { return z.running("s3") })
		x := w.start("x", both)
		x.link.set(func(l *link) { l.unwatched = &kube.StatusError{Code: 403} })
		x.connect("s1")
		w.pass(time.Minute)
		z.kill()
		w.within(time.Minute, "x runs", func() bool { return x.running("s1") })
	})
}
