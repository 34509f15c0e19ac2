// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"time"
)

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
	s.engine.Note("script", "restores the snapshot of %v", at)
	for _, key := range s.names {
		o := s.objects[key]
		was, now := o.asOf(at), o.last()
		if was.rv == now.rv || o.kind == "Pod" {
			continue
		}
		was.at = s.engine.Now()
		o.versions = append(o.versions, was)
		if l := was.lease; l != nil {
			s.engine.Note("script", "%s is of %q again (hold %s, version %d)", o.name, l.Holder, l.Annotations["metaparticle.io/hold"], was.rv)
		}
	}
	s.rv += bumped
	s.compacted, s.changes = s.rv, nil
	for _, w := range s.watches {
		w.finish(fmt.Errorf("restored: %w", errBroken))
	}
	s.lost = false
	s.comeUp()
	s.inform()
}
