// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// onceSlot is the slot of the once claims in these tests.
var onceSlot = api.OnceLease("schema")

// The function "once" gives the pod a once claim with a gated init container.
func once(key string) func(c *Config) {
	return func(c *Config) {
		c.Slots, c.OnceKey, c.Readiness = []string{onceSlot}, key, api.ReadinessHolder
		c.Containers, c.InitContainers = nil, []string{"migrate"}
		c.LeaseDuration = 2 * time.Minute
	}
}

// migrate connects the shim of the pod's init container.
func (p *pod) migrate(id gate.ShimID) { p.gates.connect(gate.Report{Shim: id, Container: "migrate"}) }

// The method "working" starts a pod whose shim s1 does the work of the key 7.
func (w *world) working(options ...func(*Config)) *pod {
	w.t.Helper()
	w.free(onceSlot)
	a := w.start("a", append(options, once("7"))...)
	a.migrate("s1")
	w.within(time.Second, "the work runs", func() bool { return a.running("s1") })
	return a
}

// done returns the done keys in the Lease.
func (w *world) done() api.Done {
	return api.Done(w.server.lease(onceSlot).Annotations[api.DoneAnnotation])
}

func TestPodsSkipTheWorkOfADoneKey(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(onceSlot)
		a, b, later := w.start("a", once("7")), w.start("b", once("7")), w.start("c", once("8"))
		a.migrate("s1")
		w.within(time.Second, "the work runs", func() bool { return a.running("s1") })
		b.migrate("s2")
		later.migrate("s3")
		w.pass(10 * time.Minute)
		assert.Empty(t, b.gates.codes(), "the work is not done yet")
		assert.Equal(t, gate.Waiting, later.gates.phase("s3"), "another key of the name waits, too")
		a.gates.succeed("s1")
		w.within(time.Second, "the second pod goes on", b.dismissed)
		assert.Equal(t, []int{0}, b.gates.codes())
		assert.Empty(t, b.gates.given())
		w.within(time.Second, "the next key runs", func() bool { return later.running("s3") })
		assert.Equal(t, api.Done("7"), w.done())
		later.gates.succeed("s3")
		w.within(time.Second, "both are done", func() bool { return w.done() == "7,8" })
		assert.Empty(t, w.server.lease(onceSlot).Holder)
		d := w.start("d", once("7"))
		d.migrate("s4")
		w.within(time.Second, "a pod of a later day goes on", d.dismissed)
		w.pass(time.Second)
		assert.Contains(t, w.server.told(), "AlreadyDone")
	})
}

func TestDelayAfterFailureNeverCountsAsBoundedWait(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.working(func(c *Config) { c.WaitAtMost = 5 * time.Second })
		a.gates.fail("s1")
		w.pass(time.Second)
		a.migrate("s2")
		w.within(11*time.Second, "the work runs again", func() bool { return a.running("s2") })
		assert.Empty(t, a.gates.codes(), "the delay is no part of the wait")
	})
}

// After a failure the pods of the key wait together, as one container does in the kubelet's
// back-off. The pods of another key do not wait.
func TestFailedWorkDelaysAllPodsWithSameKey(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(onceSlot)
		a, b := w.start("a", once("7")), w.start("b", once("7"))
		failures := func() string { return w.server.lease(onceSlot).Annotations[api.FailuresAnnotation] }
		a.migrate("s1")
		w.within(time.Second, "the work runs", func() bool { return a.running("s1") })
		b.migrate("s2")
		a.gates.fail("s1")
		w.within(time.Second, "the failure is counted", func() bool { return failures() == "7 1" })
		a.migrate("s3")
		w.pass(9 * time.Second)
		assert.False(t, a.running("s3") || b.running("s2"), "both pods wait")
		w.within(2*time.Second, "one pod works again", func() bool { return a.running("s3") != b.running("s2") })
		other := w.start("c", once("8"))
		other.migrate("s4")
		again, id := a, gate.ShimID("s3")
		if b.running("s2") {
			again, id = b, "s2"
		}
		again.gates.fail(id)
		w.within(2*time.Second, "the work of another key runs", func() bool { return other.running("s4") })
		assert.Equal(t, "7 2", failures())
		other.gates.succeed("s4")
		w.within(time.Second, "the other key is done", func() bool { return w.done() == "8" })
		assert.Equal(t, "7 2", failures(), "each key has a count of its own")
		again.migrate("s5")
		waiting := map[*pod]gate.ShimID{a: "s3", b: "s2"}
		waiting[again] = "s5"
		running := func(p *pod) bool { return p.running(waiting[p]) }
		w.pass(15 * time.Second)
		assert.False(t, running(a) || running(b), "the second delay is twice as long")
		w.within(5*time.Second, "the work runs again", func() bool { return running(a) || running(b) })
		last := a
		if running(b) {
			last = b
		}
		last.gates.succeed(waiting[last])
		w.within(time.Second, "the failures are over", func() bool { return failures() == "" && w.done() == "8,7" })
	})
}

// The test pauses the slot, so that no pod does the work after the delay.
func TestPodStatusShowsFailureUntilRetryDelayEnds(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.working()
		b, other := w.start("b", once("7")), w.start("c", once("8"))
		b.migrate("s2")
		other.migrate("s3")
		w.pass(10 * time.Second)
		w.annotate(onceSlot, api.PausedAnnotation, "hold")
		a.gates.fail("s1")
		a.migrate("s4")
		w.pass(6 * time.Second) // if only a status message changes, a standby may write the new message 5 s late
		for _, p := range []*pod{a, b} {
			assert.Equal(t, "False WorkFailed", p.ready())
			assert.Equal(t, "the work of once.schema has failed 1 time for the key 7, and the pod waits", p.message())
		}
		assert.Equal(t, "False Paused", other.ready(), "the key 8 has not failed")
		w.pass(10 * time.Second)
		for _, p := range []*pod{a, b} {
			assert.Equal(t, "False Paused", p.ready(), "the delay is over")
		}
	})
}

// The work fails while the agent drains it, because the API server stores no write. The Lease still
// names the pod, so the pod could take its slot back without a release.
func TestFailureDuringDrainIsCountedBeforeRetry(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.working()
		a.link.set(func(l *link) { l.unwritten = &kube.StatusError{Code: 503} })
		w.within(time.Minute, "the work is drained", func() bool { return a.gates.phase("s1") == gate.Draining })
		a.gates.fail("s1")
		w.pass(time.Second)
		a.migrate("s2")
		w.pass(time.Second)
		a.link.set(func(l *link) { l.unwritten = nil })
		w.pass(9 * time.Second)
		assert.Equal(t, "7 1", w.server.lease(onceSlot).Annotations[api.FailuresAnnotation])
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"), "the pod waits after the failure")
		w.within(5*time.Second, "the work runs again", func() bool { return a.running("s2") })
	})
}
