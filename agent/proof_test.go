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

// The Lease names a hold of this pod, from before the agent's process began.
func TestPodTakesItsEarlierHoldOnlyWithProof(t *testing.T) {
	const earlier = "boot-0"
	for name, c := range map[string]struct {
		boot     string // the boot of the hold
		unproven string // the hold that the shim doubts
		change   func(c *Config)
		waits    bool // until the Lease expires
	}{
		"another boot":                   {earlier, "h", func(*Config) {}, false},
		"another boot, in the notes":     {earlier, "h", func(c *Config) { c.Boots = []string{earlier, boot} }, false},
		"another boot, not in the notes": {earlier, "h", func(c *Config) { c.Boots = []string{boot} }, true},
		// A runtime may have replaced the virtual machine of the pod, while the first machine runs on.
		"own kernel":               {earlier, "h", func(c *Config) { c.OwnKernel = true }, true},
		"own kernel, in the notes": {earlier, "", func(c *Config) { c.OwnKernel, c.Boots = true, []string{earlier, boot} }, true},
		// The note of an earlier grant may name the hold in the Lease.
		"unreadable note": {boot, gate.Unreadable, func(*Config) {}, true},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.server.put(&kube.Lease{Name: theSlot, Holder: "a_u", DurationSeconds: 30, Annotations: map[string]string{
				api.HoldAnnotation: "h", api.BootAnnotation: c.boot}})
			a := w.start("a", c.change)
			a.gates.connect(gate.Report{Shim: "s1", Container: "app", Unproven: c.unproven})
			if c.waits {
				w.pass(29 * time.Second)
				assert.Equal(t, "a_u", w.holder(), "not released")
				assert.False(t, a.running("s1"))
			}
			w.within(3*time.Second, "taken", func() bool { return a.running("s1") })
		}))
	}
}
