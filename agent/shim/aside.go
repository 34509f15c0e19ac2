// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
)

// aside is a command that runs beside the child: a hook, or what the agent
// orders. It descends from the shim as the child does, so whatever kills the
// child's descendants kills it too. Nothing waits for it.
type aside struct {
	argv, env []string
	// until is when it is killed, zero for never.
	until time.Duration
	// done gets the outcome, once.
	done func(outcome)

	pid    int  // 0 while it is not known, and when it was reaped
	late   bool // it was killed because its time was up
	status unix.WaitStatus
	ended  chan struct{} // closed when it was reaped
	out    *os.File
	kept   []byte // of its reader until it is finished
}

// outcome is what became of an aside.
type outcome struct {
	code   int
	output []byte
	late   bool
	err    error // it could not be run, or not to its end
}

// problem is nil for a success.
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

// spawned is an aside that has been started, or has not.
type spawned struct {
	*aside
	pid int
	err error
}

// launch starts an aside. Its exec may hang, as the child's may; so that is
// waited for elsewhere, and what is reaped meanwhile is noted (strays).
func (s *shim) launch(a *aside) {
	a.ended = make(chan struct{})
	s.asides = append(s.asides, a)
	s.spawning++
	path := os.Getenv("PATH")
	go func() {
		pid, err := a.start(path)
		s.spawned <- spawned{a, pid, err}
	}()
}

// start forks, as spawn does for the child, but for the files: no input, and
// output that is kept.
func (a *aside) start(path string) (pid int, err error) {
	file, err := host.LookPath(a.argv[0], path)
	if err != nil {
		return 0, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("start %s: %w", a.argv[0], err)
	}
	defer unix.Close(pipe[1])
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(null)
		pid, err = host.Fork(file, a.argv, &syscall.ProcAttr{
			Env:   a.env,
			Files: []uintptr{uintptr(null), uintptr(pipe[1]), uintptr(pipe[1])},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	}
	if err != nil {
		unix.Close(pipe[0])
		return 0, fmt.Errorf("start %s: %w", a.argv[0], err)
	}
	_ = unix.SetNonblock(pipe[0], true) // the runtime's poller reads it
	a.out = os.NewFile(uintptr(pipe[0]), "output")
	return pid, nil
}

// launched takes in what became of a start.
func (s *shim) launched(sp spawned) {
	s.spawning--
	if sp.err != nil {
		s.settle(sp.aside, outcome{err: sp.err})
	} else {
		sp.aside.pid = sp.pid
		if status, ok := s.strays[sp.pid]; ok {
			sp.reaped(status)
		}
		go sp.read(s.finished)
	}
	if s.spawning == 0 {
		clear(s.strays)
	}
}

// reapedAside notes the end of a process that is not the child: of an aside, of
// one whose process id is not known yet, or of an orphan.
func (s *shim) reapedAside(pid int, status unix.WaitStatus) {
	for _, a := range s.asides {
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
	close(a.ended)
	_ = a.out.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
}

// read keeps the output until the process has ended; what that has left behind
// may hold the pipe open. Then the rest is read and dropped, because a closed
// pipe would kill who writes on.
func (a *aside) read(finished chan<- *aside) {
	defer a.out.Close()
	buf := make([]byte, 4<<10)
	var n int
	var err error
	for err == nil {
		n, err = a.out.Read(buf)
		a.keep(buf[:n])
	}
	<-a.ended
	if raw, errRaw := a.out.SyscallConn(); errRaw == nil {
		_ = raw.Control(func(fd uintptr) {
			for n = 1; n > 0 && len(a.kept) < gate.MostOutput; a.keep(buf[:max(n, 0)]) {
				n, _ = unix.Read(int(fd), buf)
			}
		})
	}
	finished <- a
	err = a.out.SetReadDeadline(time.Time{})
	for err == nil {
		_, err = a.out.Read(buf)
	}
}

func (a *aside) keep(b []byte) {
	a.kept = append(a.kept, b[:min(len(b), gate.MostOutput-len(a.kept))]...)
}

// finish takes in the outcome of an aside that was read to its end. An exit code
// that is our own SIGKILL says nothing about the application.
func (s *shim) finish(a *aside) {
	if s.killing {
		s.settle(a, outcome{err: errChildEnded})
		return
	}
	s.settle(a, outcome{code: exitCode(a.status), output: a.kept, late: a.late})
}

// settle tells the outcome, unless the aside was given up before.
func (s *shim) settle(a *aside, o outcome) {
	if i := slices.Index(s.asides, a); i >= 0 {
		s.asides = slices.Delete(s.asides, i, i+1)
		a.done(o)
	}
}

// errChildEnded is the outcome of what the end of the child cut short.
var errChildEnded = errors.New("the application has ended")

// giveUpAsides settles what is left when the child and all beside it are dead.
func (s *shim) giveUpAsides() {
	for len(s.asides) > 0 {
		s.settle(s.asides[0], outcome{err: errChildEnded})
	}
}

// wakeAt sets the alarm, and no later than an aside has to be killed or a signal
// that is held back has to be looked at.
func (s *shim) wakeAt(at time.Duration) {
	for _, a := range s.asides {
		if a.until != 0 && !a.late && a.pid != 0 {
			at = min(at, a.until)
		}
	}
	if len(s.passing.early) > 0 && !s.frozen() {
		at = min(at, s.passing.lookAt)
	}
	s.alarm.Set(at)
}

// killLate kills the asides whose time is up, with all that stayed in their
// process group.
func (s *shim) killLate() {
	for _, a := range s.asides {
		if a.until != 0 && !a.late && a.pid != 0 && host.Now() >= a.until {
			a.late = true
			_ = host.Signal(-a.pid, unix.SIGKILL)
		}
	}
}
