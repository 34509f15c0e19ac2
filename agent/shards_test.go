// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// mapShard returns the name of the Lease of a shard of the Job "map".
func mapShard(n int) string { return "shards.job.map." + strconv.Itoa(n) }

// ofRun gives the pod three shards of the named run. Each shard is done after one success of its
// work in that run.
func ofRun(run string) func(c *Config) {
	return func(c *Config) {
		c.Slots, c.Any, c.Shards, c.OnceKey, c.Readiness = []string{mapShard(0), mapShard(1), mapShard(2)}, true, 3, run, api.ReadinessAll
	}
}

// stamp writes the stamp into the Leases of the three shards.
func (w *world) stamp(text string) {
	for n := range 3 {
		l := w.server.lease(mapShard(n))
		l.Name = mapShard(n)
		l.DurationSeconds = max(l.DurationSeconds, 30)
		if l.Annotations == nil {
			l.Annotations = map[string]string{}
		}
		l.Annotations[api.StampAnnotation] = text
		w.server.put(&l)
	}
}

// mapped returns the number of shards that are done in the run.
func (w *world) mapped(run string) (n int) {
	for i := range 3 {
		if l := w.server.lease(mapShard(i)); api.Done(l.Annotations[api.DoneAnnotation]).Has(run) {
			n++
		}
	}
	return n
}

// maps connects the shim of the container that works on a shard.
func (p *pod) maps(id gate.ShimID) { p.connect(id) }

func TestPodsHoldEachShardUntilItsWorkSucceeds(t *testing.T) {
	simulate(t, func(w *world) {
		w.stamp("1/3/1-a")
		var pods []*pod
		for i := range 4 {
			p := w.start(strconv.Itoa(i), ofRun("1-a"))
			p.maps(gate.ShimID("s" + strconv.Itoa(i)))
			pods = append(pods, p)
		}
		running := func() (n int) {
			for i, p := range pods {
				if p.running(gate.ShimID("s" + strconv.Itoa(i))) {
					n++
				}
			}
			return n
		}
		w.within(10*time.Second, "three pods run", func() bool { return running() == 3 })
		w.pass(time.Minute)
		assert.Equal(t, 3, running(), "the fourth pod stands by, because all shards are held")
		var spare *pod
		done := 0
		for i, p := range pods {
			if id := gate.ShimID("s" + strconv.Itoa(i)); p.running(id) {
				p.gates.succeed(id)
				done++
				w.within(time.Second, "the success is recorded", func() bool { return w.mapped("1-a") == done })
			} else {
				spare = p
			}
		}
		require.NotNil(t, spare)
		w.within(time.Second, "the fourth pod skips", spare.dismissed)
		assert.Equal(t, []int{0}, spare.gates.codes())
		assert.Empty(t, spare.gates.given())
		for n := range 3 {
			assert.Empty(t, w.server.lease(mapShard(n)).Holder)
		}
	})
}

func TestFailedShardIsRepeatedByAnotherPod(t *testing.T) {
	simulate(t, func(w *world) {
		w.stamp("1/3/1-a")
		for n := 1; n < 3; n++ {
			l := w.server.lease(mapShard(n))
			l.Annotations[api.DoneAnnotation] = "1-a"
			w.server.put(&l)
		}
		a, b := w.start("a", ofRun("1-a")), w.start("b", ofRun("1-a"))
		a.maps("s1")
		w.within(time.Second, "shard 0 runs", func() bool { return a.running("s1") })
		b.maps("s2")
		w.pass(10 * time.Second)
		a.gates.fail("s1")
		w.within(5*time.Second, "shard 0 runs again", func() bool { return b.running("s2") })
		assert.Equal(t, 2, w.mapped("1-a"))
		assert.Empty(t, w.server.lease(mapShard(0)).Annotations[api.FailuresAnnotation], "the Job counts")
		b.gates.succeed("s2")
		w.within(time.Second, "all are done", func() bool { return w.mapped("1-a") == 3 })
	})
}

func TestPodIgnoresShardsStampedForAnEarlierRun(t *testing.T) {
	simulate(t, func(w *world) {
		w.stamp("1/3/1-a")
		for n := range 3 {
			l := w.server.lease(mapShard(n))
			l.Annotations[api.DoneAnnotation] = "1-a"
			w.server.put(&l)
		}
		b := w.start("b", ofRun("2-b"))
		b.maps("s1")
		w.pass(time.Minute)
		assert.Empty(t, b.gates.given())
		assert.Empty(t, b.gates.codes(), "the earlier run is none of its own")
		w.stamp("2/3/2-b")
		w.within(10*time.Second, "a shard runs again", func() bool { return b.running("s1") })
		w.stamp("3/3/3-c closed")
		w.within(20*time.Second, "the shard stops for the next run", func() bool { return !b.running("s1") })
		assert.Zero(t, w.mapped("2-b"))
	})
}

func TestPodOfIndexedJobTakesOnlyOwnShard(t *testing.T) {
	simulate(t, func(w *world) {
		w.stamp("1/3/1-a")
		own := func(c *Config) {
			ofRun("1-a")(c)
			c.Slots, c.Any = []string{mapShard(1)}, false
		}
		a := w.start("a", own)
		a.maps("s1")
		w.within(time.Second, "its shard runs", func() bool { return a.running("s1") })
		assert.NotEmpty(t, w.server.lease(mapShard(1)).Holder)
		a.gates.succeed("s1")
		w.within(time.Second, "its shard is done", func() bool { return w.mapped("1-a") == 1 })
		b := w.start("b", own)
		b.maps("s2")
		w.within(time.Second, "a second pod of the index skips", b.dismissed)
		assert.Empty(t, b.gates.given())
	})
}
