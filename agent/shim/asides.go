// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// aside is a command that runs beside the child: a hook, or a command that the agent orders. An
// aside descends from the shim, as the child does. So when the shim kills all its descendants, it
// also kills the aside. The shim puts off no deadline for an aside.
type aside struct {
	Command
	// until is the instant at which the shim kills the command; zero for never.
	until time.Duration
	// done is called once, with the outcome.
	done func(outcome)

	pid    int  // 0 while the id is unknown, and after the reaping
	late   bool // the shim killed the aside at the aside's timeout
	status unix.WaitStatus
	output Output
}

// outcome is the outcome of an aside.
type outcome struct {
	code   int
	output []byte
	late   bool
	err    error // the reason for which the command did not run to its end; nil if it did
}

// problem returns the error of an aside that has failed; nil after a success.
func (o outcome) problem() error {
	switch {
	case o.err != nil:
		return o.err
	case o.late:
		return errors.New("killed, because its time was up")
	case o.code != 0:
		return fmt.Errorf("exit code %d: %s", o.code, o.output)
	}
	return nil
}

// errChildEnded is the outcome of a command that was killed because the child had ended.
var errChildEnded = errors.New("the application has ended")

// asides are the commands beside one child.
type asides struct {
	machine  Machine
	all      []*aside
	spawning int                     // the number of asides whose process id is not known yet
	strays   map[int]unix.WaitStatus // the processes that the shim reaped during the start of an aside
}

// launch starts an aside, and does not wait for its exec, which may hang. Until the
// process id of the aside is known, each process that the shim reaps may be the aside.
// So the shim remembers each such process as a stray, and later looks among the strays for the
// aside.
func (s *asides) launch(a *aside) {
	s.all = append(s.all, a)
	s.spawning++
	s.machine.Start(&a.Command)
}

// The method "started" handles the outcome of the start of an aside.
func (s *asides) started(in Start) {
	s.spawning--
	if a := s.find(in.Command); in.Err != nil {
		s.conclude(a, outcome{err: in.Err})
	} else if a != nil {
		a.pid, a.output = in.PID, in.Output
		if status, ok := s.strays[in.PID]; ok {
			a.reaped(status)
		}
	} else if _, ok := s.strays[in.PID]; ok {
		in.Output.End()
	}
	if s.spawning == 0 {
		clear(s.strays)
	}
}

// The method "reaped" handles the end of a process: an aside or an orphan. While the process id
// of any aside is unknown, the method keeps an unknown process as a stray.
func (s *asides) reaped(pid int, status unix.WaitStatus) {
	for _, a := range s.all {
		if a.pid == pid {
			a.reaped(status)
			return
		}
	}
	if s.spawning > 0 {
		s.strays[pid] = status
	}
}

func (a *aside) reaped(status unix.WaitStatus) {
	a.pid, a.status = 0, status
	a.output.End()
}

// The method "finished" concludes an aside whose output is complete. The argument "killing" reports
// that the shim is killing all remaining processes. The outcome is then errChildEnded, because
// the exit code of a killed probe or hook proves nothing about the application.
func (s *asides) finished(in Result, killing bool) {
	switch a := s.find(in.Command); {
	case a == nil:
	case killing:
		s.conclude(a, outcome{err: errChildEnded})
	default:
		s.conclude(a, outcome{code: exitCode(a.status), output: in.Output, late: a.late})
	}
}

// find returns the aside that runs the command; nil if that aside is concluded already.
func (s *asides) find(c *Command) *aside {
	for _, a := range s.all {
		if &a.Command == c {
			return a
		}
	}
	return nil
}

// conclude removes the aside, and calls the function in the field "done" with the outcome. An aside
// that is concluded already stays as it is.
func (s *asides) conclude(a *aside, o outcome) {
	if i := slices.Index(s.all, a); i >= 0 {
		s.all = slices.Delete(s.all, i, i+1)
		a.done(o)
	}
}

// giveUp concludes the remaining asides after the child and every aside are dead.
func (s *asides) giveUp() {
	for len(s.all) > 0 {
		s.conclude(s.all[0], outcome{err: errChildEnded})
	}
}

// due returns the instant of the next kill of an aside, or the given instant if that is
// earlier.
func (s *asides) due(at time.Duration) time.Duration {
	for _, a := range s.all {
		if a.killable() {
			at = min(at, a.until)
		}
	}
	return at
}

// killLate kills the asides whose time is over, and every process in their process groups.
func (s *asides) killLate() {
	for _, a := range s.all {
		if a.killable() && s.machine.Now() >= a.until {
			a.late = true
			_ = s.machine.Signal(-a.pid, unix.SIGKILL)
		}
	}
}

// killable reports whether the aside runs, has a time limit, and has not been killed by killLate.
func (a *aside) killable() bool { return a.until != 0 && !a.late && a.pid != 0 }
