// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/api"
)

// Exit codes of the shim that are not its child's.
const (
	ExitLost          = api.ExitLost
	ExitNotExecutable = api.ExitNotExecutable
	ExitNotFound      = api.ExitNotFound
	ExitBroken        = api.ExitBroken
)

// ShimConfig is what a shim runs, and how.
type ShimConfig struct {
	// Container is the name of the container that it is in.
	Container string
	// Socket is the agent's.
	Socket string
	// Command is the child's, as the container runtime would have run it.
	Command []string
	// StandBy: after a loss, stand by again instead of ending.
	StandBy bool
	// StopSignal asks the child to stop; zero means SIGTERM.
	StopSignal syscall.Signal
	// PostStart is run when the child has started, and PreStop before it is
	// asked to stop; nil for none.
	PostStart, PreStop *Hook
	// Grace is what the child and its PreStop have to stop in where nobody says
	// otherwise: the pod's own.
	Grace time.Duration
	// Env is what the child finds in its environment, as name=value, besides
	// what the shim found in its own; nil for nothing.
	Env func([]SlotToken) []string
	// Leaps tells that the wall clock leapt; nil for the machine's own.
	Leaps *Leaps
	// Stderr is where the shim says what it must; nil for the process's own.
	Stderr io.Writer
}

// shim supervises one child at a time. Everything happens in one goroutine
// (that of Exec), which waits in next; the others only bring events.
type shim struct {
	cfg   ShimConfig
	path  string // of the executable
	self  state  // what the agent's end is told
	grant Grant  // the one that the child runs under

	child  int // its process id, 0 if none lives
	status unix.WaitStatus
	// stopping: the container is being stopped from outside. Whatever the
	// child ends with then is the container's end.
	stopping bool
	killing  bool   // everything that is left
	refused  string // the hold whose grant was said to be too short

	hooks    hooks
	passing  passing
	asides   []*aside
	ordered  int                     // of them, by the agent
	spawning int                     // of them, whose process id is not known yet
	strays   map[int]unix.WaitStatus // reaped meanwhile
	spawned  chan spawned
	finished chan *aside

	lines    chan string // for the container's log
	written  chan struct{}
	tty      terminal
	ignored  []os.Signal // of SIGHUP and SIGINT, as found
	alarm    *Alarm
	leaps    *Leaps
	frost    frost
	beat     *time.Ticker
	notice   *time.Timer
	links    chan linkEvent
	conn     *conn
	pidfd    int
	signals  chan os.Signal
	children chan os.Signal
}

// Exec runs the command as often as it is granted, and returns the exit code
// for the container. The process must end with it at once: as PID 1 its end is
// what kills whatever could not be killed otherwise.
func Exec(cfg ShimConfig) (code int) {
	if cfg.Stderr == nil {
		cfg.Stderr = os.Stderr
	}
	if cfg.StopSignal == 0 {
		cfg.StopSignal = unix.SIGTERM
	}
	s := &shim{cfg: cfg, lines: make(chan string, 16), written: make(chan struct{})}
	go s.write()
	defer s.finishWriting()
	path, err := LookPath(cfg.Command[0], os.Getenv("PATH"))
	if err != nil {
		// Now rather than when it holds: such a pod needs no slot.
		s.say("%v", err)
		return startCode(err)
	}
	s.path = path
	if err := s.init(); err != nil {
		s.say("%v", err)
		return ExitBroken
	}
	go s.alarm.Run()
	go s.leaps.Run()
	go Trim(context.Background())
	go connect(cfg.Socket, s.links)
	for do := s.wait; do != nil; {
		do, code = do()
	}
	return code
}

func (s *shim) init() (err error) {
	bootID, err := BootID()
	if err != nil {
		return err
	}
	s.self = state{
		Shim: ShimID(rand.Text()), Container: s.cfg.Container, BootID: bootID,
		PID1: os.Getpid() == 1, Phase: Waiting, Began: Now(), Since: Now(),
	}
	if s.self.PID1 {
		spreadNumbers()
	} else {
		// Orphans become ours, as they do become PID 1's.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become the reaper: %w", err)
		}
	}
	if s.alarm, err = NewAlarm(); err != nil {
		return err
	}
	if s.leaps = s.cfg.Leaps; s.leaps == nil {
		s.leaps = NewLeaps()
	}
	// Without it (Linux before 5.3) the agent's end may still find it out by
	// itself, or else refuses the shim and says so.
	if s.pidfd, err = unix.PidfdOpen(os.Getpid(), 0); err != nil {
		s.pidfd = -1
	}
	s.beat = time.NewTicker(beatEvery)
	s.notice = time.NewTimer(standbyNotice)
	s.links = make(chan linkEvent)
	// Room for a burst of different signals; the kernel merges equal ones too.
	s.signals = make(chan os.Signal, 64)
	s.children = make(chan os.Signal, 1)
	s.strays = map[int]unix.WaitStatus{}
	s.spawned = make(chan spawned)
	s.finished = make(chan *aside)
	s.tty = findTerminal()
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if signal.Ignored(sig) {
			s.ignored = append(s.ignored, sig)
		}
	}
	signal.Notify(s.children, unix.SIGCHLD)
	catch(s.signals)
	return nil
}

// catch brings every signal that can be caught, but for SIGCHLD, which is the
// reaper's, and SIGURG, by which the Go runtime interrupts its own threads: a
// child behind the shim never gets these two from outside.
func catch(c chan os.Signal) {
	for n := syscall.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGKILL, unix.SIGSTOP:
		default:
			signal.Notify(c, n)
		}
	}
}

// event is what next brought: at most one of signal, grant and drain; none if
// only time has passed, a process has ended, or the connection has changed.
type event struct {
	signal syscall.Signal
	grant  *Grant
	drain  *drain
}

// next waits for something to happen. What is the same in every state (reaping,
// beats, the connection) it does itself.
func (s *shim) next() event {
	defer s.mindLeaps()
	select {
	case sig := <-s.signals:
		return event{signal: sig.(syscall.Signal)}
	case <-s.children:
		s.reap()
	case sp := <-s.spawned:
		s.launched(sp)
	case a := <-s.finished:
		s.finish(a)
	case <-s.alarm.C:
		s.killLate()
		s.giveEarly()
	case <-s.leaps.C:
	case <-s.beat.C:
		s.tell()
	case <-s.notice.C:
		if s.conn == nil {
			s.say("standing by: waiting for the agent's container to answer")
		} else {
			s.say("standing by: the application starts here when this pod gets the slot")
		}
	case l := <-s.links:
		return s.link(l)
	}
	return event{}
}

// link follows the connection. Events of an old one never come after the first
// of a new one, and the state is told first on each: a grant sent before the
// agent's end heard it is void.
func (s *shim) link(l linkEvent) event {
	switch {
	case l.up != nil:
		s.conn = l.up
		fds := []int{s.pidfd}
		if s.pidfd < 0 {
			fds = nil
		}
		_ = s.conn.send(message{state: &s.self}, fds...)
	case l.down:
		s.conn = nil
	case s.conn != nil && l.order.Run != nil:
		s.obey(l.order.Run)
	case s.conn != nil:
		return event{grant: l.order.Grant, drain: l.order.Drain}
	}
	return event{}
}

// tell repeats the state. What cannot be sent now is made good for by the next
// beat or the next connection.
func (s *shim) tell() {
	if s.conn != nil {
		_ = s.conn.send(message{state: &s.self})
	}
}

// enter changes the phase, and tells so.
func (s *shim) enter(p Phase) {
	s.self.Phase, s.self.Since = p, Now()
	s.tell()
}

// say tells a person, who reads the container's log. It never waits for that
// log: a runtime that does not read it must not stop the watchdog.
func (s *shim) say(format string, args ...any) {
	select {
	case s.lines <- fmt.Sprintf("metaparticle: "+format+"\n", args...):
	default:
	}
}

func (s *shim) write() {
	defer close(s.written)
	for line := range s.lines {
		_, _ = io.WriteString(s.cfg.Stderr, line)
	}
}

// lastWords is how long the end waits for what was said to be written: pipes
// take it at once or not at all.
const lastWords = 50 * time.Millisecond

func (s *shim) finishWriting() {
	close(s.lines)
	select {
	case <-s.written:
	case <-time.After(lastWords):
	}
}
