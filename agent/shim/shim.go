// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/api"
)

// Config has the command of a shim, and the settings of its child.
type Config struct {
	// Container is the name of the shim's container.
	Container string
	// Command is the command of the child: what the container runtime would run without a shim.
	// Path is the executable file of Command. The function Exec finds this file by the
	// environment variable PATH.
	Command []string
	Path    string
	// StandBy makes the shim wait for another grant after a lost hold. If StandBy is false, the
	// loss ends the container.
	StandBy bool
	// The field Records reports that the agent records the child's success in a Lease. After a
	// success such a shim waits until the agent has the shim's message, but no longer than the
	// grant allows.
	Records bool
	// MaySkip permits the agent to end the waiting shim with exit code 0. MayEndWait permits the
	// agent to end the shim with [api.ExitWaited].
	MaySkip, MayEndWait bool
	// Unbounded permits a grant without a deadline. If Unbounded is false, the shim refuses such
	// a grant: an agent that sent it by mistake would let the child outlive its slot.
	Unbounded bool
	// StopSignal is the signal that makes the child stop; zero means SIGTERM.
	StopSignal syscall.Signal
	// PostStart runs when the child has started, and PreStop before the first stop signal to
	// the child; nil for none.
	PostStart, PreStop *Hook
	// HTTP reports that one of the hooks sends HTTP requests.
	HTTP bool
	// Grace is the default time for PreStop and the child's stop together: the pod's
	// termination grace period.
	Grace time.Duration
	// Env returns further variables (name=value) for the environment of the child; nil means
	// none. Environ is the shim's own environment.
	Env     func([]api.Token) []string
	Environ []string

	// Only Exec reads the fields below.

	// Socket is the path of the agent's socket.
	Socket string
	// Leaps reports leaps of the wall clock. Nil means the leaps of the machine's own clock.
	Leaps *linux.Leaps
	// Stderr is the output for the shim's lines. Nil means the standard error of the process.
	Stderr io.Writer
}

// The method "permits" reports whether a waiting shim may end with the exit code. Without this
// check, a mistake of the agent could end a container that must wait.
func (c Config) permits(code int) bool {
	return code == 0 && c.MaySkip || code == api.ExitWaited && c.MayEndWait
}

// shim supervises one child at a time. All work happens in one goroutine, which waits in the method
// "next"; the machine only delivers inputs. For each state of the shim there is a method, such
// as "wait" or "run", which is called a step and runs during that state. The parts of a shim
// (link, asides, hooks and so on) work in the same way in each step.
type shim struct {
	cfg     Config
	machine Machine
	link    link
	child   child
	asides  asides
	signals passing
	hooks   hooks
	stopper stopper
	frost   frost

	// unreaped reports that the last call of reap may not have reaped every process that has
	// ended.
	unreaped bool
	ordered  int // the number of the agent's commands that the shim has not answered yet
	// The field "stopping" reports that the container ends with the child's exit code, once the
	// child has ended.
	stopping bool
	// The field "signalled" reports that the shim has passed the child a signal that may be a
	// stop signal.
	signalled bool
	refused   string // the last hold whose grant the shim has logged as too short
}

func newShim(cfg Config, id Identity, m Machine) *shim {
	if cfg.StopSignal == 0 {
		cfg.StopSignal = unix.SIGTERM
	}
	s := &shim{cfg: cfg, machine: m}
	now := m.Now()
	s.link = link{machine: m, state: gate.Report{
		Shim: id.Shim, Container: cfg.Container, BootID: id.BootID, PID1: id.PID1,
		Phase: gate.Waiting, Began: now, Since: now, HTTP: cfg.HTTP,
	}}
	s.child = child{environ: cfg.Environ, ours: cfg.Env}
	s.asides = asides{machine: m, strays: map[int]unix.WaitStatus{}}
	s.signals = passing{machine: m, link: &s.link, child: &s.child, stopSignal: cfg.StopSignal}
	s.frost = frost{machine: m, link: &s.link, child: &s.child, never: cfg.Unbounded}
	s.hooks = hooks{link: &s.link, child: &s.child, asides: &s.asides, onStart: cfg.PostStart, onStop: cfg.PreStop}
	s.stopper = stopper{
		machine: m, link: &s.link, child: &s.child, hooks: &s.hooks, signals: &s.signals, stopSignal: cfg.StopSignal,
	}
	return s
}

// Exec runs the command under each grant, and returns the exit code of the container. The
// caller must immediately end the process with that code. The end of PID 1 kills the processes
// that the shim could not kill.
func Exec(cfg Config) (code int) {
	if cfg.Stderr == nil {
		cfg.Stderr = os.Stderr
	}
	cfg.Environ = os.Environ()
	k := newKernel(cfg.Stderr)
	defer k.finishWriting()
	said := link{machine: k}
	path, err := linux.LookPath(cfg.Command[0], os.Getenv("PATH"))
	if err != nil {
		// If the command does not exist, the pod needs no slot, so the shim ends before it
		// waits for a grant.
		said.say("%v", err)
		return startCode(err)
	}
	cfg.Path = path
	id, err := k.open(cfg)
	if err != nil {
		said.say("%v", err)
		return api.ExitBroken
	}
	return Run(cfg, id, k)
}

// Run runs the command on any machine, as Exec does on the kernel. When Run ends, the machine
// must kill all its processes.
func Run(cfg Config, id Identity, m Machine) (code int) {
	s := newShim(cfg, id, m)
	for do := s.wait; do != nil; {
		do, code = do()
	}
	return code
}

// link sends the shim's state to the server, and writes lines for people.
type link struct {
	machine Machine
	state   gate.Report
	conn    Conn // nil without a connection
	// unsent reports that the last message was not sent.
	unsent bool
}

// tell sends the state. If the state cannot be sent now, the next beat or the next
// connection sends it.
func (l *link) tell() { l.send(gate.Message{Report: &l.state}) }

// answer sends the outcome of a command that the agent ordered.
func (l *link) answer(r gate.Outcome) { l.send(gate.Message{Ran: &r}) }

func (l *link) send(m gate.Message) {
	l.unsent = true
	if l.conn == nil {
		return
	}
	if b, err := gate.Encode(m); err == nil {
		l.unsent = l.conn.Send(b) != nil
	}
}

// enter changes the phase, and sends the state.
func (l *link) enter(p gate.Phase) {
	l.state.Phase, l.state.Since = p, l.machine.Now()
	l.tell()
}

// trouble makes the agent write an Event about a failure.
func (l *link) trouble(reason, message string) {
	l.state.Trouble = gate.Trouble{Serial: l.state.Trouble.Serial + 1, Reason: reason, Message: message}
	l.tell()
}

// say writes a line for people into the container's log.
func (l *link) say(format string, args ...any) {
	l.machine.Say(fmt.Sprintf("metaparticle: "+format+"\n", args...))
}

// child is the application's process, and the grant under which it runs.
type child struct {
	grant  gate.Grant
	pid    int // 0 if no child lives
	status unix.WaitStatus
	// began is the instant at which the child started. A thaw adds the duration of the freeze to
	// this instant, because a frozen child sets no signal handlers (see youngFor).
	began time.Duration
	// The field "killing" reports that the shim is killing all remaining processes.
	killing bool
	environ []string // the shim's own environment
	ours    func([]api.Token) []string
}

// env returns the variables of the grant, and then those variables of the shim's own
// environment that have other names. If a name came twice, a program could read the wrong value.
func (c *child) env() []string {
	if c.ours == nil {
		return c.environ
	}
	return override(c.environ, c.ours(c.grant.Slots.List()))
}

// override returns the variables in the argument "ours", and then those variables in the argument
// "environ" that have other names.
func override(environ, ours []string) []string {
	env := ours
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if !has(ours, name) {
			env = append(env, v)
		}
	}
	return env
}

func has(env []string, name string) bool {
	for _, v := range env {
		if n, _, _ := strings.Cut(v, "="); n == name {
			return true
		}
	}
	return false
}

// startCode returns the exit code for a child that could not be started.
func startCode(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return api.ExitNotFound
	}
	return api.ExitNotExecutable
}

// exitCode returns the child's own exit code, or 128+n if the child died of signal n.
func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
