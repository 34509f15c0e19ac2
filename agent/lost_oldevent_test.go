// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// The agent restarts while an API server restarts. That API server stores no renewal, has forgotten
// the version that the agent has read, and first sends an old state of the Lease.
func TestOldEventKillsNoChildOfRestartedAgent(t *testing.T) {
	for _, late := range []bool{false, true} { // whether the shim connects after the old event
		simulate(t, func(w *world) {
			old := w.server.put(&kube.Lease{Name: theSlot, Holder: "b_u", DurationSeconds: 30, Annotations: map[string]string{api.HoldAnnotation: "hb"}})
			w.edit(func(l *kube.Lease) { l.Holder, l.Annotations = "", nil })
			var c *staleStart
			stale := func(cf *Config) { c = &staleStart{link: cf.API.(*link), name: theSlot}; cf.API = c }
			a := w.start("a", stale)
			a.connect("s1").stop = time.Hour
			w.within(time.Second, "child runs", func() bool { return a.running("s1") })
			w.pass(10 * time.Second)
			a.kill()
			a.link.set(func(l *link) { l.unwritten, l.forgetful = &kube.StatusError{Code: 503}, true })
			a = w.start("a", func(cf *Config) { stale(cf); c.old.Store(old) })
			if late {
				w.pass(100 * time.Millisecond)
			}
			reads := 0
			a.link.set(func(l *link) { reads = l.gets })
			a.gates.connect(a.gates.shim("s1").report)
			w.pass(3 * time.Second)
			a.link.set(func(l *link) {
				l.unwritten, l.forgetful = nil, false
				assert.LessOrEqual(t, l.gets-reads, 8, "the agent reads about twice a second")
			})
			c.old.Store(nil)
			w.pass(3 * time.Second)
			assert.Empty(t, a.gates.told(), "the Lease has always named this pod (late %v)", late)
			assert.True(t, a.running("s1"))
			assert.Equal(t, a.identity(), w.holder())
		})
	}
}
