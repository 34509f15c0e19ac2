// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// shortages lets pods run out of something.
type shortages struct{ *workloads }

// cause lets a pod run out of something for a while: of space in its volume, of processes, or of
// buffers of its sockets. A pod whose application ends keeps its buffers. Its agent reads all the
// time, so a real socket of that agent is full for an instant only.
func (s shortages) cause() {
	p := engine.Pick(s.Rng, s.Pods)
	last := engine.Between(s.Rng, 100*time.Millisecond, 2*s.longest)
	which := s.Rng.IntN(3)
	if p.Ends > 0 {
		which %= 2
	}
	lacks := []*bool{&p.Full, &p.Unforkable, &p.Clogged}[which]
	*lacks = true
	s.Note(p.Name, "%s for %v", []string{"its volume is full", "no child can start", "its sockets are full"}[which], last)
	s.After(last, func() { *lacks = false })
}
