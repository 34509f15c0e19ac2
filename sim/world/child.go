// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// child is an application with all that descends from it.
type child struct {
	container *container
	// where is the name of the container's process in the history.
	where string
	// shim is the parent process of the child.
	shim  *shim
	name  string
	hold  string
	slots []gate.SlotToken
	alive bool
	// excused from exclusivity: frozen at its deadline, or uninterruptible.
	excused bool
	// still: its shim has stopped it, as with SIGSTOP.
	still bool
	// stuck until then: not even SIGKILL ends it.
	stuck time.Duration
	// stops is how long it takes to stop when it is asked to; never, if
	// negative.
	stops time.Duration
	began time.Duration
	asked bool
	// drainBy is when a drain's grace is over, on the node's clock.
	drainBy time.Duration
}

// ends is the end of the child's main process, if it still lives.
func (c *child) ends(how string) {
	s := c.shim
	s.whenThawed(func() {
		if !c.alive || s.child != c || s.dead {
			return
		}
		if s.stands() {
			s.later = append(s.later, func() { c.ends(how) })
			return
		}
		s.w.note(s.name, "%s %s", c.name, how)
		s.killAll()
	})
}

func (c *child) dies() {
	if !c.alive {
		return
	}
	c.alive = false
	c.pod().w.childEnds(c)
}

// current reports whether the kubelet knows of the child's container process, and of
// none that is fresher.
func (c *child) current() bool { return c.shim.current() }

// unwatched reports whether the process that enforces the child's deadline stands
// still.
func (c *child) unwatched() bool { return c.shim.frozen }
