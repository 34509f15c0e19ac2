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
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Child is an application with all its descendants.
type Child struct {
	// Container is the container in which the child runs.
	Container *container
	// where is the name of the container's process in the history of events.
	where string
	// Shim is the parent process of the child; nil where a pod has no shims.
	Shim *ShimProcess
	// Name is the name of the child in the history of events.
	Name string
	// Hold and Slots are the hold and the slots of the grant under which the child began.
	Hold  string
	Slots []SlotToken
	// grant is the last grant that the shim accepted for the child.
	grant gate.Grant
	// Alive reports that the child, or one of its descendants, is not dead.
	Alive bool
	// processes are the main process and one descendant, until each is reaped. The
	// descendant lives until it is killed.
	processes []*containerProcess
	// Excused reports that exclusivity does not bind the child. For example, its shim was frozen
	// at the deadline, or the child is in uninterruptible sleep.
	Excused bool
	// still is true while the child is frozen, because the shim has sent SIGSTOP.
	still bool
	// later has the events that wait until the shim thaws the child.
	later []func()
	// Hung reports that the child runs, and fails its readiness probe.
	Hung bool
	// Stuck is the instant until which not even SIGKILL ends the child.
	Stuck time.Duration
	// Stops is the time that the child takes to stop after SIGTERM; negative if it ignores
	// the signal.
	Stops time.Duration
	// Began is the instant at which the child began.
	Began time.Duration
	Asked bool // a signal has asked the child to stop, and the child does not ignore it
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
func (p *containerProcess) seen() linux.Process {
	return linux.Process{PID: p.pid, Parent: 1, Zombie: !p.alive, Stopped: p.stopped}
}

// bear makes a child of the shim, under the grant that the shim accepted last.
func (s *ShimProcess) bear(slots []SlotToken) *Child {
	p := s.Container.pod
	s.w.Number()
	pid := s.w.Number()
	s.hold = s.told.Hold
	c := &Child{
		Container: s.Container, where: s.Name, Shim: s, Name: fmt.Sprintf("child-%d", pid),
		Hold: s.hold, Slots: slots, Alive: true, Began: s.w.Now(), Stops: p.stops(s.rng),
		processes: []*containerProcess{{pid: pid, alive: true}, {pid: pid + 1, alive: true}},
	}
	s.Child = c
	s.watches(c, s.told)
	s.w.Checks.childBegins(c)
	if s.Container.Init {
		c.prepares()
	} else {
		p.live(c)
	}
	return c
}

// main returns the main process of the child, the only process that reacts to a stop signal.
func (c *Child) main() *containerProcess { return c.processes[0] }

// prepares ends an init container after at most three seconds, mostly with success. A child that is
// asked to stop before then ends in another way.
func (c *Child) prepares() {
	s := c.Shim
	code := 0
	if !s.w.Calm && engine.Chance(s.rng, .2) {
		code = 1
	}
	s.w.After(engine.Between(s.rng, 100*time.Millisecond, 3*time.Second), func() {
		if !c.Asked && c.drainBy == 0 {
			c.Exits("has prepared", code)
		}
	})
}

// gets applies a signal to a process of the child.
func (c *Child) gets(p *containerProcess, sig syscall.Signal) {
	w := c.Shim.w
	switch sig {
	case unix.SIGSTOP:
		p.stopped = true
		if !c.still && c.stands() {
			c.still = true
			w.Note(c.where, "%s stands still: the clock was set", c.Name)
		}
	case unix.SIGCONT:
		p.stopped = false
		if c.still {
			c.goesOn()
		}
	case unix.SIGKILL:
		if !p.dying {
			p.dying = true
			w.After(c.slowed(killTime(c.Shim.rng)), func() {
				c.Pod().Node.whenAwake(func() { c.loses(p, unix.WaitStatus(unix.SIGKILL)) })
			})
		}
	default:
		if c.signalled = true; p.alive {
			w.Checks.done.asks(c.Hold)
		}
		if p == c.main() && !c.Asked && c.Stops >= 0 {
			c.Asked = true
			w.After(c.Stops, func() { c.ends("stops", unix.WaitStatus(sig)) })
		}
	}
}

// stands reports whether all living processes of the child are frozen.
func (c *Child) stands() bool {
	for _, p := range c.processes {
		if p.alive && !p.stopped {
			return false
		}
	}
	return c.Alive
}

// goesOn lets the child continue after SIGCONT.
func (c *Child) goesOn() {
	c.Shim.w.Note(c.where, "%s goes on", c.Name)
	c.still = false
	c.Shim.w.Checks.goesOn(c)
	later := c.later
	c.later = nil
	for _, do := range later {
		do()
	}
}

// slowed returns the time that SIGKILL takes: the argument "took", and the rest of an
// uninterruptible sleep. A process in uninterruptible sleep gets the signal late.
func (c *Child) slowed(took time.Duration) time.Duration {
	return max(c.Stuck-c.Shim.w.Now(), 0) + took
}

// Exits lets the child's main process end with an exit code.
func (c *Child) Exits(how string, code int) { c.ends(how, unix.WaitStatus(code<<8)) }

// ends lets the child's main process end, if the process still lives. A frozen or stuck process
// ends later.
func (c *Child) ends(how string, status unix.WaitStatus) {
	if c.Shim == nil {
		c.endsAlone(how)
		return
	}
	n := c.Pod().Node
	n.whenAwake(func() {
		w := c.Shim.w
		again := func() { c.ends(how, status) }
		switch {
		case !c.Alive || len(c.processes) < 2 || !c.main().alive:
		case c.still:
			c.later = append(c.later, again)
		case c.Stuck > w.Now():
			w.After(c.Stuck-w.Now(), again)
		default:
			w.Note(c.where, "%s %s", c.Name, how)
			// A Job counts the failures of its shards, so no Lease has to count them.
			if key := c.Pod().Key; key != "" && !c.signalled && (status == 0 || c.Pod().Shards == 0) {
				w.Checks.done.ends(c.Hold, key, status == 0)
			}
			c.loses(c.main(), status)
		}
	})
}

// loses ends one process of the child.
func (c *Child) loses(p *containerProcess, status unix.WaitStatus) {
	if !p.alive || !c.Alive {
		return
	}
	p.alive, p.status = false, status
	c.Shim.push(shim.Ended)
	for _, other := range c.processes {
		if other.alive {
			return
		}
	}
	c.dies()
}

// dies marks the child as dead, after the end of its last process.
func (c *Child) dies() {
	if !c.Alive {
		return
	}
	c.Alive = false
	c.Pod().w.Checks.childEnds(c)
}

// drainWithin notes the instant by which the child has to be dead.
func (c *Child) drainWithin(grace time.Duration) {
	until := c.Pod().Node.Now() + grace
	if c.drainBy == 0 {
		c.drainBy, c.drainGrace = until, grace
		c.Shim.w.Note(c.where, "drains %s of %s within %v", c.Name, c.Hold, grace)
	}
	c.drainBy = min(c.drainBy, until)
}

// Current reports whether the child's shim is the newest one of its container, and the
// kubelet knows the shim. Without a shim every child is current.
func (c *Child) Current() bool { return c.Shim == nil || c.Shim.current() }

// unwatched reports, after a pause of the machine, whether no process could stop the child in time.
// Either the child's shim is frozen, or the slot of a pod without shims expired during the pause.
func (c *Child) unwatched() bool {
	if c.Shim == nil {
		// The agent of a pod without shims notices the pause only when the pause is over. By
		// then the slot may have expired.
		return slices.ContainsFunc(c.Slots, func(t SlotToken) bool { return c.Pod().w.Checks.expired(c, t.Slot) })
	}
	return c.Shim.frozen
}

// live plans the end of the child. Either the version of the application crashes, the work is done,
// or the child ends by itself. The field Restless of the template decides whether the child ends by
// itself.
func (p *Pod) live(c *Child) {
	if last := p.Behaviour.Lasts; last > 0 {
		p.w.After(last, func() { c.Exits("crashes, as its version does", 1) })
	}
	if p.Ends > 0 {
		p.w.After(engine.Between(p.rng, p.Ends/10, 2*p.Ends), func() { c.Exits("has done its work", 0) })
	}
	if p.Restless > 0 {
		p.w.After(engine.Between(p.rng, p.Restless/10, 2*p.Restless), func() {
			if !p.w.Calm {
				c.Exits("ends by itself", 1)
			}
		})
	}
}
