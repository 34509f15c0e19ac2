// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// leastLeap is the shortest change of the wall clock that a shim takes for the trace
// of a pause, as gate has it.
const leastLeap = 500 * time.Millisecond

// frost mirrors gate's: what a shim does about a leap of the wall clock.
type frost struct {
	leaps int
	// leap is the one that no grant has answered yet; 0 for none.
	leap int
	// later is what waits until the child goes on.
	later []func()
}

// leapt is told that the wall clock was set.
func (s *shim) leapt() {
	s.leaps++
	s.leap = s.leaps
	if s.stands() {
		s.child.still = true
		s.w.note(s.name, "%s stands still: the clock was set", s.child.name)
	}
	s.tell()
}

// stands reports whether the child stands still until the agent has answered.
func (s *shim) stands() bool { return s.leap != 0 && s.child != nil && !s.killing && !s.dead }

// answer lets the child go on, if the grant was made after the leap.
func (s *shim) answer(g *gate.Grant) {
	if s.leap == 0 || g.Leap != s.leap {
		return
	}
	if s.child != nil {
		s.w.note(s.name, "%s goes on", s.child.name)
		s.child.still = false
		s.w.goesOn(s.child)
	}
	s.leap = 0
	later := s.later
	s.later = nil
	for _, do := range later {
		do()
	}
	s.tell()
}
