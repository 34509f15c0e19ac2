// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

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
// false if the shim has another connection by now, or if the shim's phase is [gate.Ended]. In that
// phase the hang-up shows the shim that its last message has arrived.
func (s *Server) wants(p *peer, c Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.conn == c && p.report.Phase != gate.Ended
}

// welcome processes the first message of a connection. If the desk did not know the shim
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
	st, _, err := gate.DecodeMessage(b)
	switch {
	case err != nil:
		return nil, false, err
	case st.BootID != s.machine.BootID:
		return nil, false, fmt.Errorf("%w: boot id %q", gate.ErrMessage, st.BootID)
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
	st, answer, err := gate.DecodeMessage(b)
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
		return fmt.Errorf("%w: shim of %q says %q", gate.ErrMessage, p.report.Container, st.Container)
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
