// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

var (
	// ErrUnknown: no such shim, or it is dead.
	ErrUnknown = errors.New("unknown shim")
	// ErrNotConnected: the shim cannot be reached now. A grant is not kept for
	// it; a drain is.
	ErrNotConnected = errors.New("shim is not connected")
	// ErrOver: the shim drained under that hold, or its container ends. It
	// starts nothing under it any more.
	ErrOver = errors.New("the hold is over for this shim")
	// ErrUnproven: an earlier shim of the container was granted that hold, and
	// nothing proves that it is dead.
	ErrUnproven = errors.New("an earlier shim of the container is not known to be dead")
	// ErrNotNoted: the ledger cannot be written, because the disk is full or
	// read-only. Nothing was sent.
	ErrNotNoted = errors.New("the grant could not be noted")
)

// Names in the shared directory.
const (
	// GrantedDir has the notes of what was granted and is not proven over.
	GrantedDir = "granted"
	// LockName is locked by the one agent process that acts for the pod.
	LockName = "agent.lock"

	socketName = api.SocketName
)

// ServerConfig says where the agent's end lives.
type ServerConfig struct {
	// Dir is the shared directory; it exists.
	Dir string
	// RequirePID1 refuses a shim that is not PID 1 of its namespace, because its
	// end would not be the end of what it started. Only tests do without.
	RequirePID1 bool
	// OwnKernel: the pod may run in a virtual machine of its own, so a note of
	// another boot stays unproven.
	OwnKernel bool
	// Silence is after how long without a word a shim is reported Silent; zero
	// means two beats and a half.
	Silence time.Duration
	Log     *slog.Logger

	oldKernel bool // as before Linux 6.5, in tests
}

// Server is the agent's end of the grant: it hears every shim of the pod, and
// is the only agent process that does while it holds the lock.
type Server struct {
	cfg      ServerConfig
	bootID   string
	lock     *os.File
	listener *net.UnixListener
	reports  chan Report

	mu     sync.Mutex
	peers  map[ShimID]*peer
	runs   map[string]run // by the order's id
	ledger *ledger
	outbox *outbox
}

// Listen waits until no other agent process acts for the pod (a killed one may
// take a moment to die), then opens the socket for the shims.
func Listen(ctx context.Context, cfg ServerConfig) (*Server, error) {
	cfg = cfg.withDefaults()
	bootID, err := BootID()
	if err != nil {
		return nil, err
	}
	lock, err := Lock(ctx, filepath.Join(cfg.Dir, LockName), cfg.Log)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, bootID: bootID, lock: lock,
		reports: make(chan Report),
		peers:   map[ShimID]*peer{},
		runs:    map[string]run{},
		outbox:  newOutbox(),
	}
	if s.ledger, err = openLedger(filepath.Join(cfg.Dir, GrantedDir), bootID, cfg.OwnKernel); err == nil {
		s.listener, err = Socket("unixpacket", filepath.Join(cfg.Dir, socketName), 0o777)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (c ServerConfig) withDefaults() ServerConfig {
	if c.Silence == 0 {
		c.Silence = silence
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Reports yields the last Report of each shim that changed. A reader that is
// late sees fewer, never older ones, and holds up nothing.
func (s *Server) Reports() <-chan Report { return s.reports }

// Run serves until ctx ends, then hangs up on every shim and gives up the lock.
// A child whose shim was hung up on runs on until its grant runs out.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()

	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	tasks.Go(func() { s.outbox.deliver(ctx, s.reports) })
	tasks.Go(func() { s.listenForSilence(ctx) })
	for {
		c, err := s.listener.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if c != nil {
				c.Close()
			}
			return nil
		case err != nil:
			// Out of files, say. Without shims there is nothing to hold for: a
			// new process does better than this one.
			return fmt.Errorf("accept a shim: %w", err)
		}
		tasks.Go(func() { s.serve(ctx, &tasks, c) })
	}
}

// Close gives up the socket and the lock of a Server that does not Run.
func (s *Server) Close() error {
	return errors.Join(ignoreClosed(s.listener.Close()), ignoreClosed(s.lock.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Granted tells whether a shim of the container may have been granted the hold,
// by this agent process or an earlier one, and is not known to be dead.
func (s *Server) Granted(container, hold string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	noted := s.ledger.entries[container].Hold
	return noted == hold || noted == Unreadable
}

// Grant permits the shim to run its child, or moves the deadline of the one
// that runs. The note in the ledger is written first.
func (s *Server) Grant(id ShimID, g Grant) error {
	if g.BootID == "" {
		g.BootID = s.bootID
	}
	if err := g.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[id]
	switch {
	case p == nil:
		return ErrUnknown
	case p.conn == nil:
		return ErrNotConnected
	case s.ledger.unproven(p.report.Container, id) == g.Hold:
		return ErrUnproven
	case p.phaseOver(g.Hold):
		return ErrOver
	}
	if err := s.ledger.record(p.report.Container, id, g.Hold); err != nil {
		return fmt.Errorf("%w: %w", ErrNotNoted, err)
	}
	p.granted = g.Hold
	s.review(p.report.Container)
	if err := p.conn.send(order{Grant: &g}); err != nil {
		return fmt.Errorf("send grant: %w", err)
	}
	return nil
}

// Drain asks the shim to stop its child, within grace or by the deadline,
// whichever comes first, and to start nothing under that hold any more. Once
// asked it is not taken back, and it is repeated to a shim that reconnects. The
// Report with that Hold over is the answer.
func (s *Server) Drain(id ShimID, reason string, grace time.Duration) error {
	return s.askToStop(id, drain{Reason: reason, Grace: grace})
}

// End asks for what Drain does, of a shim that has a child; but then the
// container ends with the child's exit code, instead of standing by again.
func (s *Server) End(id ShimID, reason string, grace time.Duration) error {
	return s.askToStop(id, drain{Reason: reason, Grace: grace, End: true})
}

func (s *Server) askToStop(id ShimID, ask drain) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[id]
	if p == nil {
		return ErrUnknown
	}
	hold := p.holdToDrain()
	if hold == "" || p.phaseOver(hold) || ask.End && p.report.Phase == Waiting {
		return nil // nothing was granted or runs, or it is over already
	}
	until := Now() + min(max(ask.Grace, 0), longest)
	switch d := p.drain; {
	case d == nil || d.hold != hold:
		p.drain = &pendingDrain{hold: hold, reason: ask.Reason, until: until, end: ask.End}
	case until < d.until:
		d.reason, d.until = ask.Reason, until
		fallthrough
	default:
		d.end = d.end || ask.End
	}
	if p.conn == nil {
		return nil
	}
	return p.sendDrain()
}
