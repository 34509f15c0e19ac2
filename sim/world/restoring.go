// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// restoring causes the faults of the story "chaos". At the end of each time of faults, a person
// restores the API server's objects, as docs/disaster.md describes. The snapshot is from a random
// instant of that time. All leases are short, because the person waits for the longest one.
type restoring struct{ *chaos }

// run plays the story of one seed.
func (r restoring) run() {
	if !r.quiet("the start") {
		return
	}
	for range 3 {
		began := r.Now()
		if !r.disturb(r.scale() * engine.Between(r.Rng, 20*time.Second, 60*time.Second)) {
			return
		}
		var snapshot time.Duration
		r.Do(func() {
			snapshot = engine.Between(r.Rng, began, r.Now())
			r.api.lose()
		})
		// The person waits for the longest lease duration on the slowest clock.
		if !r.Pass(slow(r.longest)) {
			return
		}
		r.Do(func() {
			r.checkStopped()
			r.api.restore(snapshot)
			r.heal()
		})
		if !r.quiet("the restore") {
			return
		}
	}
	r.parade()
}

// checkStopped demands that no application with a shim outlives its slot during the person's wait.
// Applications on a paused machine are excused.
func (r restoring) checkStopped() {
	for _, c := range r.checks.alive {
		if c.shim != nil && c.current() && !c.pod().node.paused {
			r.checks.checkOutlived(c)
		}
	}
}

// lose stops the API server until [server.restore] starts the server again.
func (s *server) lose() {
	s.lost = true
	s.goDown()
}

// bumped is the number by which a restore raises etcd's revision.
const bumped = 1_000_000

// restore replaces the Leases, Roles and bindings by those of an earlier instant. Each object gets
// its version of that instant. The pods stay, because the story is about Leases. New
// resourceVersions are higher than all that a client has seen, and all watches end.
func (s *server) restore(at time.Duration) {
	s.w.Note("script", "restores the snapshot of %v", at)
	for _, key := range s.names {
		o := s.objects[key]
		was, now := o.asOf(at), o.last()
		if was.rv == now.rv || o.kind == "Pod" {
			continue
		}
		was.at = s.w.Now()
		o.versions = append(o.versions, was)
		if l := was.lease; l != nil {
			s.w.Note("script", "%s is of %q again (hold %s, version %d)", o.name, l.Holder, l.Annotations["metaparticle.io/hold"], was.rv)
		}
	}
	s.rv += bumped
	s.compacted, s.changes = s.rv, nil
	for _, w := range s.watches {
		w.finish(fmt.Errorf("restored: %w", errBroken))
	}
	s.lost = false
	s.comeUp()
	s.tellEnroll()
}
