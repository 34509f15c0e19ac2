// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// child is an application with all its descendants.
type child struct {
	container *container
	// where is the name of the container's process in the history.
	where string
	// shim is the parent process of the child; nil where a pod has no shims.
	shim  *shimProcess
	name  string
	hold  string
	slots []gate.SlotToken
	// grant is the last grant that the shim accepted for the child.
	grant gate.Grant
	alive bool
	// processes are the main process and one descendant, until each is reaped. The
	// descendant lives until it is killed.
	processes []*containerProcess
	// excused reports that exclusivity does not bind the child. For example, its shim was frozen
	// at the deadline, or the child is in uninterruptible sleep.
	excused bool
	// still is true while the child is frozen, because the shim has sent SIGSTOP.
	still bool
	// later has the events that wait until the shim thaws the child.
	later []func()
	// stuck is the instant until which not even SIGKILL ends the child.
	stuck time.Duration
	// stops is the time that the child takes to stop after SIGTERM; negative if it ignores
	// the signal.
	stops time.Duration
	began time.Duration
	asked bool // a signal has asked the child to stop, and the child does not ignore it
	// signalled reports that a signal has asked the child to stop, even if the child
	// ignores that signal.
	signalled bool
	// drainBy is the end of a drain's grace, on the node's clock.
	drainBy time.Duration
	// drainGrace is the grace of the drain that was noted last.
	drainGrace time.Duration
}

// containerProcess is one process of a child.
type containerProcess struct {
	pid                   int
	alive, stopped, dying bool
	status                unix.WaitStatus
}

// seen returns the process as the kernel shows it.
func (p *containerProcess) seen() host.Process {
	return host.Process{PID: p.pid, Parent: 1, Zombie: !p.alive, Stopped: p.stopped}
}

// bear makes a child of the shim, under the grant that the shim accepted last.
func (s *shimProcess) bear(slots []gate.SlotToken) *child {
	p := s.container.pod
	s.w.Number()
	pid := s.w.Number()
	s.hold = s.told.Hold
	c := &child{
		container: s.container, where: s.name, shim: s, name: fmt.Sprintf("child-%d", pid),
		hold: s.hold, slots: slots, alive: true, began: s.w.Now(), stops: p.stops(s.rng),
		processes: []*containerProcess{{pid: pid, alive: true}, {pid: pid + 1, alive: true}},
	}
	s.child = c
	s.watches(c, s.told)
	s.w.checks.childBegins(c)
	if s.container.init {
		c.prepares()
	} else {
		p.live(c)
	}
	return c
}

// main returns the main process of the child, the only process that reacts to a stop signal.
func (c *child) main() *containerProcess { return c.processes[0] }

// prepares ends an init container after a few seconds, mostly with success.
func (c *child) prepares() {
	s := c.shim
	code := 0
	if !s.w.calm && engine.Chance(s.rng, .2) {
		code = 1
	}
	s.w.After(engine.Between(s.rng, 100*time.Millisecond, 3*time.Second), func() {
		if !c.asked && c.drainBy == 0 {
			c.exits("has prepared", code)
		}
	})
}

// gets applies a signal to a process of the child.
func (c *child) gets(p *containerProcess, sig syscall.Signal) {
	w := c.shim.w
	switch sig {
	case unix.SIGSTOP:
		p.stopped = true
		if !c.still && c.stands() {
			c.still = true
			w.Note(c.where, "%s stands still: the clock was set", c.name)
		}
	case unix.SIGCONT:
		p.stopped = false
		if c.still {
			c.goesOn()
		}
	case unix.SIGKILL:
		if !p.dying {
			p.dying = true
			w.After(c.slowed(killTime(c.shim.rng)), func() {
				c.pod().node.whenAwake(func() { c.loses(p, unix.WaitStatus(unix.SIGKILL)) })
			})
		}
	default:
		if c.signalled = true; p.alive {
			w.checks.done.asks(c.hold)
		}
		if p == c.main() && !c.asked && c.stops >= 0 {
			c.asked = true
			w.After(c.stops, func() { c.ends("stops", unix.WaitStatus(sig)) })
		}
	}
}

// stands reports whether all living processes of the child are frozen.
func (c *child) stands() bool {
	for _, p := range c.processes {
		if p.alive && !p.stopped {
			return false
		}
	}
	return c.alive
}

// goesOn lets the child continue after SIGCONT.
func (c *child) goesOn() {
	c.shim.w.Note(c.where, "%s goes on", c.name)
	c.still = false
	c.shim.w.checks.goesOn(c)
	later := c.later
	c.later = nil
	for _, do := range later {
		do()
	}
}

// slowed returns the time that SIGKILL takes: the argument "took", and the rest of an
// uninterruptible sleep. A process in uninterruptible sleep gets the signal late.
func (c *child) slowed(took time.Duration) time.Duration {
	return max(c.stuck-c.shim.w.Now(), 0) + took
}

// exits lets the child's main process end with an exit code.
func (c *child) exits(how string, code int) { c.ends(how, unix.WaitStatus(code<<8)) }

// ends lets the child's main process end, if the process still lives. A frozen or stuck process
// ends later.
func (c *child) ends(how string, status unix.WaitStatus) {
	if c.shim == nil {
		c.endsAlone(how)
		return
	}
	n := c.pod().node
	n.whenAwake(func() {
		w := c.shim.w
		again := func() { c.ends(how, status) }
		switch {
		case !c.alive || len(c.processes) < 2 || !c.main().alive:
		case c.still:
			c.later = append(c.later, again)
		case c.stuck > w.Now():
			w.After(c.stuck-w.Now(), again)
		default:
			w.Note(c.where, "%s %s", c.name, how)
			// A Job counts the failures of its shards, so no Lease has to count them.
			if key := c.pod().key; key != "" && !c.signalled && (status == 0 || c.pod().shards == 0) {
				w.checks.done.ends(c.hold, key, status == 0)
			}
			c.loses(c.main(), status)
		}
	})
}

// loses ends one process of the child.
func (c *child) loses(p *containerProcess, status unix.WaitStatus) {
	if !p.alive || !c.alive {
		return
	}
	p.alive, p.status = false, status
	c.shim.push(shim.Ended)
	for _, other := range c.processes {
		if other.alive {
			return
		}
	}
	c.dies()
}

// dies marks the child as dead, after the end of its last process.
func (c *child) dies() {
	if !c.alive {
		return
	}
	c.alive = false
	c.pod().w.checks.childEnds(c)
}

// drainWithin notes the instant by which the child has to be dead.
func (c *child) drainWithin(grace time.Duration) {
	until := c.pod().node.Now() + grace
	if c.drainBy == 0 {
		c.drainBy, c.drainGrace = until, grace
		c.shim.w.Note(c.where, "drains %s of %s within %v", c.name, c.hold, grace)
	}
	c.drainBy = min(c.drainBy, until)
}

// current reports whether the child's shim is the newest one of its container, and the
// kubelet knows the shim. Without a shim every child is current.
func (c *child) current() bool { return c.shim == nil || c.shim.current() }

// unwatched reports whether no process could stop the child in time. Either the child's shim is
// frozen, or the agent of a pod without shims noticed the leap too late.
func (c *child) unwatched() bool {
	if c.shim == nil {
		// The agent of a pod without shims must notice the leap before the slot expires.
		return slices.ContainsFunc(c.slots, func(t gate.SlotToken) bool { return c.pod().w.checks.expired(c, t.Slot) })
	}
	return c.shim.frozen
}

// live plans the end of the child: its version crashes, its work is done, or the child ends by
// itself. The field "restless" of the template decides whether the child ends by itself.
func (p *pod) live(c *child) {
	if last := p.behaviour.lasts; last > 0 {
		p.w.After(last, func() { c.exits("crashes, as its version does", 1) })
	}
	if p.ends > 0 {
		p.w.After(engine.Between(p.rng, p.ends/10, 2*p.ends), func() { c.exits("has done its work", 0) })
	}
	if p.restless > 0 {
		p.w.After(engine.Between(p.rng, p.restless/10, 2*p.restless), func() {
			if !p.w.calm {
				c.exits("ends by itself", 1)
			}
		})
	}
}
