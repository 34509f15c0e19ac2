// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

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

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
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
	// two and a half times [gate.BeatEvery].
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
	reports chan gate.Report

	mu       sync.Mutex
	register register
}

// Listen waits until no other agent process acts for the pod, because a killed process may take
// a moment to end. Then Listen opens the socket for the shims.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	bootID, err := host.BootID()
	if err != nil {
		return nil, err
	}
	lock, err := host.Lock(ctx, filepath.Join(cfg.Dir, gate.LockName), cfg.Log)
	if err != nil {
		return nil, err
	}
	m := Machine{BootID: bootID, Now: host.Now, Notes: directory(filepath.Join(cfg.Dir, GrantedDir))}
	s, err := New(cfg, m)
	if err == nil {
		var l *net.UnixListener
		l, err = host.Socket(host.Network, filepath.Join(cfg.Dir, api.SocketName), 0o777)
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
func New(cfg Config, m Machine) (*Server, error) {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, machine: m, outbox: newOutbox(), reports: make(chan gate.Report)}
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
func (s *Server) Reports() <-chan gate.Report { return s.reports }

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
			s.cfg.Log.Warn("shim refused: too many connections", "most", mostConns)
			c.Close()
		}
	}
}

// Close closes the socket, and gives up the flock. Run calls Close at its end. A caller that does
// not call Run calls Close itself.
func (s *Server) Close() error {
	err := host.IgnoreClosed(s.machine.Shims.Close())
	if s.lock != nil {
		err = errors.Join(err, host.IgnoreClosed(s.lock.Close()))
	}
	return err
}

// Granted reports whether a shim of the container may have had a grant of the hold. Grants of
// earlier agent processes count. A shim that the desk knows to be dead does not count.
func (s *Server) Granted(container, hold string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.register.ledger.granted(container, hold)
}

// Grant permits the shim to run its child, or moves the deadline of a running child.
// Before Grant sends the order to the shim, Grant notes the shim and the hold in the ledger.
func (s *Server) Grant(id gate.ShimID, g gate.Grant) error {
	if g.BootID == "" {
		g.BootID = s.machine.BootID
	}
	if err := g.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.register
	p := r.find(id)
	switch {
	case p == nil:
		return gate.ErrUnknown
	case p.conn == nil:
		return gate.ErrNotConnected
	case r.ledger.unproven(p.report.Container, id) == g.Hold:
		return gate.ErrUnproven
	case p.over(g.Hold):
		return gate.ErrOver
	}
	if err := r.ledger.record(p.report.Container, id, g.Hold); err != nil {
		return fmt.Errorf("%w: %w", gate.ErrNotNoted, err)
	}
	p.granted = g.Hold
	r.review(p.report.Container)
	if err := p.send(gate.Order{Grant: &g}); err != nil {
		return fmt.Errorf("send grant: %w", err)
	}
	return nil
}

// Drain orders the shim to stop its child, within the time in the argument "grace" or by the
// deadline, whichever comes first. After that order the shim starts no child under the same hold.
// The server never cancels a drain, and repeats the drain to a shim that connects again. Once the
// hold is over, the shim's Report shows that.
func (s *Server) Drain(id gate.ShimID, reason string, grace time.Duration) error {
	return s.orderDrain(id, gate.Drain{Reason: reason, Grace: grace})
}

// End orders a shim to stop its child, as Drain does. Then the shim waits for no further grant, and
// the container ends with the child's exit code.
func (s *Server) End(id gate.ShimID, reason string, grace time.Duration) error {
	return s.orderDrain(id, gate.Drain{Reason: reason, Grace: grace, End: true})
}

// Dismiss orders a waiting shim to end its container without a child. The server never repeats this
// order. So the caller must repeat the order while the shim still reports that it waits.
func (s *Server) Dismiss(id gate.ShimID, d gate.Dismiss) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.register.find(id)
	switch {
	case p == nil:
		return gate.ErrUnknown
	case p.conn == nil:
		return gate.ErrNotConnected
	}
	if err := p.send(gate.Order{Dismiss: &d}); err != nil {
		p.hangUpAfter(err)
		return fmt.Errorf("send dismissal: %w", err)
	}
	return nil
}

func (s *Server) orderDrain(id gate.ShimID, drain gate.Drain) error {
	now := s.machine.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.register.find(id)
	if p == nil {
		return gate.ErrUnknown
	}
	hold := p.holdToDrain()
	if hold == "" || p.over(hold) || drain.End && p.report.Phase == gate.Waiting {
		return nil // no child is to be stopped, or End was called for a shim that waits
	}
	p.keep(hold, drain, now)
	if p.conn == nil {
		return nil
	}
	return p.sendDrain(now)
}
