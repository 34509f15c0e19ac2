// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"time"
)

// Lose stops the API server until [Server.Restore] starts the server again.
func (s *Server) Lose() {
	s.lost = true
	s.GoDown()
}

// bumped is the number by which a restore raises etcd's revision.
const bumped = 1_000_000

// Restore replaces the Leases, Roles and bindings by those of an earlier instant. Each object gets
// its state of that instant. The pods stay as they are, because a test of a restore needs only old
// Leases and rights. The new resourceVersions are higher than all resourceVersions that a client has
// seen. All watches end.
func (s *Server) Restore(at time.Duration) {
	s.engine.Note("script", "restores the snapshot of %v", at)
	for _, key := range s.keys {
		o := s.of[key]
		was, now := o.AsOf(at), o.Last()
		if was.RV == now.RV || o.kind == "Pod" {
			continue
		}
		was.At = s.engine.Now()
		o.versions = append(o.versions, was)
		if l := was.Lease; l != nil {
			s.engine.Note("script", "%s is of %q again (hold %s, version %d)", o.name, l.Holder, l.Annotations["metaparticle.io/hold"], was.RV)
		}
	}
	s.rv += bumped
	s.compacted, s.changes = s.rv, nil
	for _, w := range s.Watches.all {
		w.finish(fmt.Errorf("restored: %w", ErrBroken))
	}
	s.lost = false
	s.ComeUp()
	s.Inform()
}
