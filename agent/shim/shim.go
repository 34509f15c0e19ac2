// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/api"
)

// Config has the command of a shim, and the settings of its child.
type Config struct {
	// Container is the name of the shim's container.
	Container string
	// Command is the child's command, which the container runtime would run without a
	// shim. Path is its executable, which Exec finds.
	Command []string
	Path    string
	// StandBy makes the shim stand by again after a loss, instead of ending.
	StandBy bool
	// Records reports that the agent records the child's success. A shim whose child has
	// succeeded then waits for the agent.
	Records bool
	// MaySkip permits the agent to end the waiting shim with exit code 0, and MayEndWait with
	// [api.ExitWaited].
	MaySkip, MayEndWait bool
	// Unbounded permits a grant without a deadline. Otherwise a mistake of the agent could let a
	// child outlive its slot.
	Unbounded bool
	// StopSignal asks the child to stop; zero means SIGTERM.
	StopSignal syscall.Signal
	// The shim runs PostStart when the child has started, and PreStop before the first
	// stop signal to the child; nil for none.
	PostStart, PreStop *Hook
	// Grace is the default time that the child and its PreStop have to stop: the pod's own
	// grace period.
	Grace time.Duration
	// Env returns variables (name=value) for the child's environment, in addition to
	// Environ, the shim's own; nil means none.
	Env     func([]gate.SlotToken) []string
	Environ []string

	// Only Exec reads the fields below.

	// Socket is the path of the agent's socket.
	Socket string
	// Leaps reports leaps of the wall clock; nil means the leaps of the machine's own
	// clock.
	Leaps *host.Leaps
	// Stderr is the output for the shim's lines; nil for the process's own.
	Stderr io.Writer
}

// permits reports whether a waiting shim may end with the exit code. Otherwise a mistake of
// the agent could end a container that is to wait for ever.
func (c Config) permits(code int) bool {
	return code == 0 && c.MaySkip || code == api.ExitWaited && c.MayEndWait
}

// shim supervises one child at a time. All work happens in one goroutine, which waits
// in the method next; the machine only brings inputs. The parts of a shim act on the
// child, and know nothing of the states.
type shim struct {
	cfg     Config
	machine Machine
	link    link
	child   child
	asides  asides
	signals passing
	hooks   hooks
	frost   frost

	ordered int // the number of asides that the agent has ordered
	// stopping reports that the container ends after the child, with the child's
	// exit code.
	stopping bool
	// signalled reports that a signal was passed to the child that may have asked the child
	// to stop.
	signalled bool
	refused   string // the hold whose grant was logged as too short
}

func newShim(cfg Config, id Identity, m Machine) *shim {
	if cfg.StopSignal == 0 {
		cfg.StopSignal = unix.SIGTERM
	}
	s := &shim{cfg: cfg, machine: m}
	now := m.Now()
	s.link = link{machine: m, state: gate.State{
		Shim: id.Shim, Container: cfg.Container, BootID: id.BootID, PID1: id.PID1,
		Phase: gate.Waiting, Began: now, Since: now,
	}}
	s.child = child{environ: cfg.Environ, ours: cfg.Env}
	s.asides = asides{machine: m, strays: map[int]unix.WaitStatus{}}
	s.signals = passing{machine: m, link: &s.link, child: &s.child}
	s.frost = frost{machine: m, link: &s.link, child: &s.child, never: cfg.Unbounded}
	s.hooks = hooks{
		machine: m, link: &s.link, child: &s.child, asides: &s.asides, signals: &s.signals,
		stopSignal: cfg.StopSignal, onStart: cfg.PostStart, onStop: cfg.PreStop,
	}
	return s
}
