// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// ErrRestart means that the kubelet must restart all containers of the pod. The agent's process
// then ends with the exit code that causes this restart.
var ErrRestart = errors.New("the pod's containers have to be restarted")

// PodConfig configures a [Pod].
type PodConfig struct {
	// Dir is the shared directory, which must exist.
	Dir string
	// Machine is the machine beneath the gate; nil means the kernel, with the notes
	// in Dir.
	Machine Machine
	// OwnKernel reports that the pod may run in a virtual machine of its own. The pod's earlier
	// virtual machine may still run. So a note with another boot id does not prove that the
	// containers of that boot are dead.
	OwnKernel bool
	Log       *slog.Logger
}

// Pod is the gate that makes the kubelet wait before it starts the application's
// containers.
type Pod struct {
	cfg      PodConfig
	bootID   string
	machine  Machine
	lock     io.Closer
	listener net.Listener
	alarm    Alarm
	box      *mailbox
	restart  chan string

	// granting is locked while Grant writes a note, however long that takes. Only Grant waits
	// for this mutex.
	granting sync.Mutex

	mu     sync.Mutex
	report gate.Report
	// endsAt is the instant at which the agent's process ends, unless a renewal moves that instant.
	endsAt time.Duration
	// waiter is the connection of the init container that waits; nil if none waits.
	waiter  net.Conn
	stopped bool
}

// OpenPod waits until no other agent process acts for the pod. OpenPod then reads
// the notes, and opens the socket for "agent wait".
func OpenPod(ctx context.Context, cfg PodConfig) (*Pod, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Machine == nil {
		cfg.Machine = kernel{Dir(cfg.Dir)}
	}
	p := &Pod{cfg: cfg, machine: cfg.Machine, box: newMailbox(), restart: make(chan string, 1)}
	var err error
	if p.bootID, err = p.machine.BootID(); err != nil {
		return nil, err
	}
	if p.lock, err = p.machine.Lock(ctx, cfg.Log); err != nil {
		return nil, err
	}
	if err = p.recall(); err == nil {
		p.alarm, err = p.machine.Alarm()
	}
	if err == nil {
		p.listener, err = p.machine.Listen()
	}
	if err != nil {
		return nil, errors.Join(err, p.lock.Close())
	}
	return p, nil
}

// recall restores the state of an earlier agent process from the notes. If the note letStart is
// unreadable, the error is [ErrRestart].
func (p *Pod) recall() error {
	p.report = gate.Report{Shim: gate.ShimID(rand.Text()), Container: Container, Phase: gate.Waiting, Since: p.machine.Now()}
	last, err := readNote(p.machine, before)
	switch {
	case err != nil:
		p.cfg.Log.Warn("whatever ran before is unproven", "err", err)
		p.report.Unproven = gate.Unreadable
	case last != nil && !p.over(last):
		p.report.Unproven = last.Hold
	}
	running, err := readNote(p.machine, letStart)
	switch {
	case err != nil:
		// A container may be running, and its deadline is unknown.
		return fmt.Errorf("%w: %w", ErrRestart, err)
	case running == nil || p.over(running):
		return nil
	}
	p.report = gate.Report{
		Shim: running.Shim, Container: Container, Phase: gate.Running, Hold: running.Hold,
		Slots: running.Slots, Since: p.machine.Now(), Connected: true,
	}
	p.endsAt = running.EndsAt
	if running.BootID != p.bootID {
		p.endsAt = 0 // the instant in the note counts from another boot
	}
	return nil
}

// The method "over" reports whether a reboot has ended the containers that could run under the
// note's hold.
func (p *Pod) over(n *note) bool { return n.BootID != p.bootID && !p.cfg.OwnKernel }

// Reports implements the agent's gate.
func (p *Pod) Reports() <-chan gate.Report { return p.box.reports }

// Run serves until ctx ends, or until the kubelet must restart the pod's containers ([ErrRestart]).
// An error of the socket also ends Run. If the channel "stop" is closed while the containers may
// run, Run returns nil. Only the kubelet knows when these containers end. So nothing releases the
// Lease, which expires.
func (p *Pod) Run(ctx context.Context, stop <-chan struct{}) error {
	defer p.Close()
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer p.hangUp()
	defer p.alarm.Close()
	defer p.listener.Close()
	defer cancel()
	tasks.Go(func() { p.box.deliver(ctx) })
	tasks.Go(p.alarm.Run)
	p.mu.Lock()
	if p.report.Phase == gate.Running {
		p.alarm.Set(p.endsAt)
		p.box.put(p.report)
	}
	p.mu.Unlock()
	accepted := make(chan error, 1)
	tasks.Go(func() { accepted <- p.accept(&tasks) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case reason := <-p.restart:
			return fmt.Errorf("%w: %s", ErrRestart, reason)
		case err := <-accepted:
			return err
		case <-p.alarm.Rings():
			p.ring()
		case <-stop:
			stop = nil
			if p.stop() {
				p.cfg.Log.Info("stopped while the application may run: the slot expires")
				return nil
			}
		}
	}
}

// Close closes the socket and the alarm, and releases the flock. The method Run calls Close at its
// end.
func (p *Pod) Close() error {
	return errors.Join(linux.IgnoreClosed(p.listener.Close()), linux.IgnoreClosed(p.alarm.Close()), linux.IgnoreClosed(p.lock.Close()))
}

// stop refuses all further grants, and reports whether a container may still be running.
func (p *Pod) stop() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	return p.report.Phase == gate.Running
}

// ring acts as the watchdog. If the agent has not renewed in time, ring makes the kubelet
// restart the containers. A new agent process that cannot read the Lease does not renew. So
// in that case, too, the containers restart.
func (p *Pod) ring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.report.Phase != gate.Running:
	case p.machine.Now() >= p.endsAt:
		p.restartAll("the slot was not renewed in time")
	default:
		p.alarm.Set(p.endsAt)
	}
}

// restartAll requests the restart. Only the first request counts, because the process then
// ends.
func (p *Pod) restartAll(reason string) {
	select {
	case p.restart <- reason:
	default:
	}
}

// Grant lets the application's containers start, or prolongs the deadline of running ones. Grant
// writes the note before it lets the containers start. A disk that hangs delays only Grant, not
// the watchdog.
func (p *Pod) Grant(id gate.ShimID, g gate.Grant) error {
	p.granting.Lock()
	defer p.granting.Unlock()
	n := p.note(id, g)
	extends, err := p.admit(n)
	if err != nil {
		return err
	}
	switch err := n.write(p.machine); {
	case err != nil && !extends:
		return fmt.Errorf("%w: %w", gate.ErrNotNoted, err)
	case err != nil:
		// The old note stays. A later agent process would read that note and begin the drain too
		// early, which is safe.
		p.cfg.Log.Debug("renewal was not noted", "err", err)
	case !extends:
		return p.letStart(n)
	}
	return nil
}

func (p *Pod) note(id gate.ShimID, g gate.Grant) *note {
	return &note{
		Shim: id, Hold: g.Hold, Slots: g.Slots, BootID: p.bootID,
		// The kubelet needs a few seconds to kill the containers. So the agent's process ends
		// at the instant at which a shim would send the stop signal.
		EndsAt: g.DrainAt(),
	}
}

// admit returns an error if the containers must not run under the note's hold. If the containers
// already run under that hold, the result "extends" is true. In that case admit postpones the
// instant at which the agent's process ends: from then on that instant is the note's EndsAt.
func (p *Pod) admit(n *note) (extends bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case n.Shim != p.report.Shim:
		return false, gate.ErrUnknown
	case p.report.Phase == gate.Running && n.Hold != p.report.Hold:
		return false, gate.ErrOver
	case p.report.Phase == gate.Running:
		p.endsAt = n.EndsAt
		p.alarm.Set(p.endsAt)
		return true, nil
	}
	return false, p.mayStart(n)
}

// mayStart returns an error if no container may start under the note's hold now.
func (p *Pod) mayStart(n *note) error {
	switch {
	case p.waiter == nil || p.stopped:
		return fmt.Errorf("no init container waits: %w", gate.ErrNotNoted)
	case p.report.Unproven == n.Hold:
		return gate.ErrUnproven
	case p.machine.Now() >= n.EndsAt:
		// This process was frozen after it had acquired the slot, or the disk was slow. A grant now
		// would start containers that must stop immediately, maybe while the next holder already
		// runs.
		return fmt.Errorf("too little time is left in which the kubelet could stop the containers: %w", gate.ErrNotNoted)
	}
	return nil
}

// letStart lets the containers start once their note is written. The write may have taken long,
// so letStart first checks again whether they may start.
func (p *Pod) letStart(n *note) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.mayStart(n); err != nil {
		return err
	}
	p.endsAt = n.EndsAt
	p.alarm.Set(p.endsAt)
	p.report.Phase, p.report.Hold, p.report.Slots = gate.Running, n.Hold, n.Slots
	p.report.Since, p.report.Unproven, p.report.Connected = p.machine.Now(), "", true
	p.box.put(p.report)
	if _, err := io.WriteString(p.waiter, goOn); err != nil {
		// The init container connects again, and the method "welcome" then restarts all containers.
		p.cfg.Log.Debug("not told to go on", "err", err)
	}
	return nil
}

// Drain ends the agent's process if a container may be running, because the agent has no
// gentler way to stop containers. Drain never reports that the hold is over.
func (p *Pod) Drain(id gate.ShimID, reason string, _ time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case id != p.report.Shim:
		return gate.ErrUnknown
	case p.report.Phase == gate.Running:
		p.restartAll(reason)
	}
	return nil
}

// accept waits for connections of the init container.
func (p *Pod) accept(tasks *sync.WaitGroup) error {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept the init container: %w", err)
		}
		if p.welcome(c) {
			tasks.Go(func() { p.listenTo(c) })
		}
	}
}

// welcome keeps the connection of the init container, and returns true. If an application
// container may already be running, welcome restarts all containers instead, and returns false.
func (p *Pod) welcome(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.report.Phase == gate.Running {
		// The init container was already told to go on, but the kubelet runs it again. The agent
		// does not know whether an application container runs, so all containers must restart.
		c.Close()
		p.restartAll("the init container runs again")
		return false
	}
	if p.waiter != nil {
		p.waiter.Close()
	}
	p.waiter = c
	p.report.Connected = true
	p.box.put(p.report)
	return true
}

// listenTo waits until the init container ends. The init container sends nothing.
func (p *Pod) listenTo(c net.Conn) {
	_, _ = io.Copy(io.Discard, c)
	p.mu.Lock()
	defer p.mu.Unlock()
	c.Close()
	if p.waiter != c {
		return
	}
	p.waiter = nil
	if p.report.Phase == gate.Waiting {
		p.report.Connected = false
		p.box.put(p.report)
	}
}

func (p *Pod) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiter != nil {
		p.waiter.Close()
	}
}
