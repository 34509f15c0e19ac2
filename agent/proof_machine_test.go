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

// Another machine runs the pod with an empty volume, and the first machine runs on without a network.
// Either the other machine has taken the name of a node, or the runtime has replaced the virtual
// machine of the pod. The agent's container of the other machine also restarts during the wait.
func TestPodOnReplacedMachineWaits(t *testing.T) {
	for _, ownKernel := range []bool{false, true} {
		simulate(t, func(w *world) {
			w.free(theSlot)
			old := w.start("old", func(c *Config) { c.PodName, c.First, c.OwnKernel, c.Boots = "a", true, ownKernel, []string{boot} })
			old.connect("s1")
			w.within(time.Second, "child runs", func() bool { return old.running("s1") })
			w.pass(10 * time.Second)
			old.link.set(func(l *link) { l.cut = true })
			boots := []string{"boot-2"}
			fresh := w.start("new", func(c *Config) {
				c.PodName, c.First, c.OwnKernel, c.BootID, c.Boots = "a", true, ownKernel, boots[0], boots
			})
			fresh.connect("s2")
			w.pass(5 * time.Second)
			assert.False(t, fresh.running("s2"), "the first process (own kernel: %v)", ownKernel)
			fresh.kill()
			fresh = w.start("new", func(c *Config) { c.First = false })
			fresh.gates.connect(fresh.gates.shim("s2").report)
			w.within(40*time.Second, "child runs on the other machine", func() bool { return fresh.running("s2") })
			assert.Equal(t, gate.Waiting, old.gates.phase("s1"), "two children of one slot (own kernel: %v)", ownKernel)
		})
	}
}

func TestRebootIsProofForBootInNotes(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "a_u", DurationSeconds: 30, Annotations: map[string]string{
			api.HoldAnnotation: "h", api.BootAnnotation: "boot-0"}})
		a := w.start("a", func(c *Config) { c.Boots = []string{"boot-0", boot} })
		a.gates.connect(gate.Report{Shim: "s1", Container: "app", Unproven: "h"})
		w.within(time.Second, "taken at once", func() bool { return a.running("s1") })
	})
}

// A person may change the boot id in the Lease, or a tool may apply an old state of the Lease. The
// shim's child lives until the deadline of its grant.
func TestForgedBootIDIsNoProofOfDeath(t *testing.T) {
	simulate(t, func(w *world) {
		a := stubborn(w, func(c *Config) { c.Boots = []string{boot} })
		b := w.start("b")
		b.connect("s1")
		w.pass(5 * time.Second)
		a.kill()
		w.edit(func(l *kube.Lease) { l.Annotations[api.BootAnnotation] = "another-boot" })
		a = w.start("a")
		w.within(time.Minute, "the other pod's child runs", func() bool {
			assert.True(t, a.stopped() || !b.running("s1"), "two children of one slot")
			return b.running("s1")
		})
	})
}

// The start lock of a pod names a hold of another machine, too.
func TestStartLockOfReplacedMachineExpires(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		w.server.put(&kube.Lease{Name: "start.lock", Holder: "a_u", DurationSeconds: 30, Annotations: map[string]string{
			api.HoldAnnotation: "h", api.BootAnnotation: "boot-0"}})
		a := w.start("a", func(c *Config) { c.StartSlots, c.First, c.Boots = []string{"start.lock"}, true, []string{boot} })
		a.connect("s1")
		w.pass(29 * time.Second)
		assert.False(t, a.running("s1"))
		w.within(10*time.Second, "child runs", func() bool { return a.running("s1") })
	})
}

// The runtime has replaced the virtual machine of the pod, and both machines use the same volume. The
// first machine holds, and starts a child only after the other machine has read the notes. So the notes
// name the boot, but no grant.
func TestHoldOfEarlierVirtualMachineExpires(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "a_u", DurationSeconds: 30, Annotations: map[string]string{
			api.HoldAnnotation: "h", api.BootAnnotation: "boot-0"}})
		a := w.start("a", func(c *Config) { c.OwnKernel, c.Boots = true, []string{"boot-0", boot} })
		a.connect("s1")
		w.pass(29 * time.Second)
		assert.False(t, a.running("s1"))
		w.within(2*time.Second, "child runs", func() bool { return a.running("s1") })
	})
}
