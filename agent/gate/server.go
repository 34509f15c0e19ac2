// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/api"
)

// GrantedDir is the directory of the ledger's notes, inside the shared directory. Each note
// names a granted hold whose end is not proven.
const GrantedDir = "granted"

// Config has the settings of a Server.
type Config struct {
	// Dir is the shared directory, which must exist. Only Listen uses Dir.
	Dir string
	// RequirePID1 makes the server refuse a shim that is not PID 1 of its namespace. The death
	// of such a shim does not end the processes that it started. Only tests leave RequirePID1
	// unset.
	RequirePID1 bool
	// OwnKernel reports that the pod may run in a virtual machine of its own. In such a pod, a
	// note with another boot id does not prove that the noted shim is dead.
	OwnKernel bool
	// Unbounded reports that the children have no deadline. The pod then has only a start lock, and
	// holds that lock only during each start of a child. A child of an earlier shim then harms no
	// other pod, so the Server keeps no notes of grants.
	Unbounded bool
	// Silence is the time without a message after which a shim is reported Silent; zero means
	// two and a half times [BeatEvery].
	Silence time.Duration
	// InstallHTTP installs the program of hooks that send HTTP requests. The Server calls
	// InstallHTTP when a shim with such a hook connects. Nil means that no shim has such a hook.
	InstallHTTP func() error
	Log         *slog.Logger

	oldKernel bool // tests set oldKernel to act as on a kernel before Linux 6.5
}

// Server is the agent's end of the connections to shims. Every shim of the pod connects to the
// Server of the one agent process that holds the flock.
type Server struct {
	cfg     Config
	machine Machine
	lock    io.Closer // the flock; nil if the caller excludes other agents
	outbox  *outbox
	reports chan Report

	mu       sync.Mutex
	register register
}

// Listen waits until no other agent process acts for the pod, because a killed process may take
// a moment to end. Then Listen opens the socket for the shims.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	bootID, err := linux.BootID()
	if err != nil {
		return nil, err
	}
	lock, err := linux.Lock(ctx, filepath.Join(cfg.Dir, LockName), cfg.Log)
	if err != nil {
		return nil, err
	}
	m := Machine{BootID: bootID, Now: linux.Now, Notes: directory(filepath.Join(cfg.Dir, GrantedDir))}
	s, err := NewServer(cfg, m)
	if err == nil {
		var l *net.UnixListener
		l, err = linux.Socket(linux.Network, filepath.Join(cfg.Dir, api.SocketName), 0o777)
		if err == nil {
			s.machine.Shims, s.lock = socket{l, cfg.oldKernel}, lock
			return s, nil
		}
	}
	lock.Close()
	return nil, err
}

// New makes a Server on the machine. The caller ensures that no other agent process
// acts for the pod.
func NewServer(cfg Config, m Machine) (*Server, error) {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, machine: m, outbox: newOutbox(), reports: make(chan Report)}
	s.register = register{outbox: s.outbox, asides: asides{}, log: cfg.Log}
	var err error
	notes := m.Notes
	if cfg.Unbounded {
		notes = forgetful{}
	}
	s.register.ledger, err = openLedger(notes, m.BootID, cfg.OwnKernel)
	return s, err
}

func (c Config) withDefaults() Config {
	if c.Silence == 0 {
		c.Silence = silence
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Reports returns a channel with the last Report of each shim whose state has changed. A slow
// reader receives fewer reports, but no outdated one, and delays no shim.
func (s *Server) Reports() <-chan Report { return s.reports }

// Run serves until ctx ends, then hangs up on every shim and gives up the flock. A
// child whose shim has lost its connection runs on until the deadline of its grant.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.machine.Shims.Close() })
	defer stop()

	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	tasks.Go(func() { s.outbox.deliver(ctx, s.reports) })
	tasks.Go(func() { s.listenForSilence(ctx) })
	open := make(chan struct{}, mostConns)
	for {
		c, err := s.machine.Shims.Accept()
		switch {
		case ctx.Err() != nil:
			if c != nil {
				c.Close()
			}
			return nil
		case err != nil:
			// The cause may be that the process is out of file descriptors. An agent without
			// shims cannot use its hold. So Run ends, and a new agent process tries again.
			return fmt.Errorf("accept a shim: %w", err)
		}
		select {
		case open <- struct{}{}:
			tasks.Go(func() {
				defer func() { <-open }()
				s.serve(ctx, &tasks, c)
			})
		default:
			s.cfg.Log.Debug("shim refused: too many connections", "most", mostConns)
			c.Close()
		}
	}
}

// Close closes the socket, and gives up the flock. Run calls Close at its end. A caller that does
// not call Run calls Close itself.
func (s *Server) Close() error {
	err := linux.IgnoreClosed(s.machine.Shims.Close())
	if s.lock != nil {
		err = errors.Join(err, linux.IgnoreClosed(s.lock.Close()))
	}
	return err
}

// Granted reports whether a shim of the container may have had a grant of the hold. Grants of
// earlier agent processes count. A shim that the server knows to be dead does not count.
func (s *Server) Granted(container, hold string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.register.ledger.granted(container, hold)
}

// Grant permits the shim to run its child, or moves the deadline of a running child.
// Before Grant sends the order to the shim, Grant notes the shim and the hold in the ledger.
func (s *Server) Grant(id ShimID, g Grant) error {
	if g.BootID == "" {
		g.BootID = s.machine.BootID
	}
	if err := g.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.register
	p := r.find(id)
	switch {
	case p == nil:
		return ErrUnknown
	case p.conn == nil:
		return ErrNotConnected
	case r.ledger.unproven(p.report.Container, id) == g.Hold:
		return ErrUnproven
	case p.over(g.Hold):
		return ErrOver
	}
	if err := r.ledger.record(p.report.Container, id, g.Hold); err != nil {
		return fmt.Errorf("%w: %w", ErrNotNoted, err)
	}
	p.granted = g.Hold
	r.review(p.report.Container)
	if err := p.send(Order{Grant: &g}); err != nil {
		return fmt.Errorf("send grant: %w", err)
	}
	return nil
}

// Drain orders the shim to stop its child, within the time in the argument "grace" or by the
// deadline, whichever comes first. After that order the shim starts no child under the same hold.
// The server never cancels a drain, and repeats the drain to a shim that connects again. Once the
// hold is over, the shim's Report shows that.
func (s *Server) Drain(id ShimID, reason string, grace time.Duration) error {
	return s.orderDrain(id, Drain{Reason: reason, Grace: grace})
}

// End orders a shim to stop its child, as Drain does. Then the shim waits for no further grant, and
// the container ends with the child's exit code.
func (s *Server) End(id ShimID, reason string, grace time.Duration) error {
	return s.orderDrain(id, Drain{Reason: reason, Grace: grace, End: true})
}

// Dismiss orders a waiting shim to end its container without a child. The server never repeats this
// order. So the caller must repeat the order while the shim still reports that it waits.
func (s *Server) Dismiss(id ShimID, d Dismiss) error {
	return s.orderOnce(id, Order{Dismiss: &d})
}

// Notify lets a waiting shim write a line into the log of its container. The server never repeats it.
func (s *Server) Notify(id ShimID, line string) error {
	return s.orderOnce(id, Order{Notice: line})
}

// orderOnce sends an order that the server does not remember.
func (s *Server) orderOnce(id ShimID, o Order) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.register.find(id)
	switch {
	case p == nil:
		return ErrUnknown
	case p.conn == nil:
		return ErrNotConnected
	}
	if err := p.send(o); err != nil {
		p.hangUpAfter(err)
		return fmt.Errorf("send order: %w", err)
	}
	return nil
}

func (s *Server) orderDrain(id ShimID, drain Drain) error {
	now := s.machine.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.register.find(id)
	if p == nil {
		return ErrUnknown
	}
	hold := p.holdToDrain()
	if hold == "" || p.over(hold) || drain.End && p.report.Phase == Waiting {
		return nil // no child is to be stopped, or End was called for a shim that waits
	}
	p.keep(hold, drain, now)
	if p.conn == nil {
		return nil
	}
	return p.sendDrain(now)
}

var errNotPID1 = errors.New("the shim is not PID 1 of its namespace: is it shared?")

// serve reads the messages of one connection until its end.
func (s *Server) serve(ctx context.Context, tasks *sync.WaitGroup, c Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	log := s.cfg.Log
	p, process, err := s.welcome(c)
	if errors.Is(err, io.EOF) {
		// After a hang-up a shim connects again at once, and may end before its first message.
		return
	}
	if err != nil {
		log.Warn("shim refused", "err", err)
		return
	}
	if process != nil {
		tasks.Go(func() { s.watch(ctx, p, process) })
	}
	for s.wants(p, c) {
		b, err := c.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = s.hear(p, c, b)
		}
		if err != nil {
			log.Info("shim hung up on", "err", err)
			break
		}
	}
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.register.hangUp(p, c)
}

// wants reports whether the server reads a further message of the connection. The result is
// false if the shim has another connection by now, or if the shim's phase is [Ended]. In that
// phase the hang-up shows the shim that its last message has arrived.
func (s *Server) wants(p *peer, c Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.conn == c && p.report.Phase != Ended
}

// welcome processes the first message of a connection. If the server did not know the shim
// before, welcome also returns the shim's process.
func (s *Server) welcome(c Conn) (*peer, Process, error) {
	b, err := c.Receive()
	if err != nil {
		return nil, nil, err
	}
	process, err := c.Process()
	if err != nil {
		return nil, nil, err
	}
	p, unknown, err := s.meet(c, process, b)
	if err != nil || !unknown {
		process.Close() // the server already watches the process, or has refused the shim
		return p, nil, err
	}
	return p, process, nil
}

func (s *Server) meet(c Conn, process Process, b []byte) (p *peer, unknown bool, err error) {
	st, _, err := DecodeMessage(b)
	switch {
	case err != nil:
		return nil, false, err
	case st.BootID != s.machine.BootID:
		return nil, false, fmt.Errorf("%w: boot id %q", ErrMessage, st.BootID)
	case s.cfg.RequirePID1 && !st.PID1:
		return nil, false, errNotPID1
	}
	if st.HTTP && s.cfg.InstallHTTP != nil {
		if err := s.cfg.InstallHTTP(); err != nil {
			s.cfg.Log.Error("hooks that send HTTP requests will fail", "container", st.Container, "err", err)
		}
	}
	now := s.machine.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.register.meet(c, process, st, now)
}

// hear processes each message after the first one.
func (s *Server) hear(p *peer, c Conn, b []byte) error {
	st, answer, err := DecodeMessage(b)
	if err != nil {
		return err
	}
	now := s.machine.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer != nil {
		s.register.asides.answered(p, answer)
		return nil
	}
	if st.Shim != p.report.Shim || st.Container != p.report.Container {
		return fmt.Errorf("%w: shim of %q says %q", ErrMessage, p.report.Container, st.Container)
	}
	if p.conn == c {
		s.register.learn(p, st, now)
	}
	return nil
}

// watch waits for the shim's death, whether or not the shim is connected, and reports the death.
func (s *Server) watch(ctx context.Context, p *peer, process Process) {
	defer process.Close()
	err := process.AwaitDeath(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.cfg.Log.Error("shim's death cannot be seen", "shim", p.report.Shim, "err", err)
		return
	}
	// The last messages of a dead shim may still be in the socket. So the server first waits
	// until every connection of the shim has been read to its end. The shim may have connected
	// again before its death.
	s.mu.Lock()
	defer s.mu.Unlock()
	for p.conn != nil {
		hungUp := p.hungUp
		s.mu.Unlock()
		select {
		case <-hungUp:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return
		}
	}
	s.register.bury(p)
}
