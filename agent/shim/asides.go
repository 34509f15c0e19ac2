// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
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

// Hook is a command that the shim runs when the child starts or stops. The kubelet itself would
// run the command only when the container starts or stops.
type Hook struct {
	Command []string
	// Env returns the variables that the hook gets in addition to those of the child. The
	// argument is the pod's address. A nil Env adds none.
	Env func(podIP string) []string
}

// The kubelet writes the same messages into its Events. The cause of a failure could contain a
// secret, so only the container's log has the cause.
const (
	postStartFailed = "PostStartHook failed"
	preStopFailed   = "PreStopHook failed"
)

// hooks runs the hooks of one child.
type hooks struct {
	link            *link
	child           *child
	asides          *asides
	onStart, onStop *Hook

	postStart, preStop *aside // nil unless the hook runs
	// The field "failed" reports that the shim must stop the child, because its postStart hook
	// failed.
	failed bool
}

// reset forgets the hooks of a child that is dead.
func (h *hooks) reset() {
	h.postStart, h.preStop, h.failed = nil, nil, false
	h.link.state.Starting, h.link.state.PreStop = false, false
}

// run starts a hook beside the child.
func (h *hooks) run(hook *Hook, done func(*aside, outcome)) *aside {
	env := h.child.env()
	if hook.Env != nil {
		env = override(env, hook.Env(h.child.grant.PodIP))
	}
	a := &aside{Command: Command{Argv: hook.Command, Env: env}}
	a.done = func(o outcome) { done(a, o) }
	h.asides.launch(a)
	return a
}

// start runs the postStart hook of a child that has started.
func (h *hooks) start() {
	if h.onStart == nil {
		return
	}
	h.link.state.Starting = true
	h.postStart = h.run(h.onStart, h.postStartEnds)
}

func (h *hooks) postStartEnds(a *aside, o outcome) {
	if h.postStart != a {
		return
	}
	h.postStart, h.link.state.Starting = nil, false
	if err := o.problem(); err != nil && h.child.pid != 0 && !h.child.killing {
		h.failed = true
		h.link.say("the postStart hook failed: %v", err)
		h.link.trouble(gate.ReasonPostStart, postStartFailed)
		return
	}
	h.link.tell()
}

// stop runs the preStop hook of a child, and calls the function "done" once the hook has ended.
func (h *hooks) stop(done func()) {
	h.preStop = h.run(h.onStop, func(a *aside, o outcome) {
		if h.preStop != a {
			return // the stop signal no longer waits for this hook
		}
		if err := o.problem(); err != nil && h.child.pid != 0 && !h.child.killing {
			h.link.say("the preStop hook failed: %v", err)
			h.link.trouble(gate.ReasonPreStop, preStopFailed)
		}
		done()
	})
	h.link.state.PreStop = true
	h.link.tell()
}

// leavePreStop ends the wait for the preStop hook. A hook that still runs continues.
func (h *hooks) leavePreStop() {
	h.preStop, h.link.state.PreStop = nil, false
	h.link.tell()
}

// expandAll expands $(NAME) in the words of a command as the kubelet does.
func expandAll(words, env []string) []string {
	values := map[string]string{}
	for _, v := range slices.Backward(env) {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = expand(word, values)
	}
	return out
}

// expand replaces $(NAME) by its value, if there is one, and $$ by one dollar sign.
func expand(word string, values map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(word, "$")
		out.WriteString(before)
		switch {
		case !found:
			return out.String()
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			word = after[1:]
			continue
		}
		word = after
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		value, known := values[name]
		if closed && strings.HasPrefix(after, "(") {
			word = rest
			if known {
				out.WriteString(value)
			} else {
				out.WriteString("$(" + name + ")")
			}
			continue
		}
		out.WriteByte('$')
	}
}
