// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// answerSlack is how long after a command's timeout the desk still waits for the answer. At the
// timeout the shim kills the command and reaps it within a few milliseconds. A shim that gets no
// processor time takes longer, but then its beats ([gate.BeatEvery]) are late as well. So the slack
// equals the time after which a shim without beats counts as silent.
const answerSlack = silence

// RunAside runs a command beside the shim's child, in the same container and as the same
// user. The shim expands $(NAME) in the command from the child's environment. The command
// has no input. The shim kills the command after the timeout. If the exit code is unknown,
// RunAside returns an error.
func (s *Server) RunAside(ctx context.Context, id gate.ShimID, command []string, timeout time.Duration) (gate.Result, error) {
	o := gate.Aside{ID: rand.Text(), Command: command, Timeout: timeout}
	if err := o.Check(); err != nil {
		return gate.Result{}, err
	}
	r, err := s.orderAside(id, &o)
	if err != nil {
		return gate.Result{}, err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.register.asides, o.ID)
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout+answerSlack, os.ErrDeadlineExceeded)
	defer cancel()
	select {
	case a, ok := <-r.answer:
		switch {
		case !ok:
			return gate.Result{}, gate.ErrNotConnected
		case a.Error != "":
			return gate.Result{}, fmt.Errorf("%w: %s", gate.ErrNotRun, a.Error)
		}
		return gate.Result{Code: a.Code, Output: a.Output, TimedOut: a.TimedOut}, nil
	case <-ctx.Done():
		return gate.Result{}, fmt.Errorf("%w: %w", gate.ErrNotRun, context.Cause(ctx))
	}
}

func (s *Server) orderAside(id gate.ShimID, o *gate.Aside) (awaited, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.register.find(id)
	switch {
	case p == nil:
		return awaited{}, gate.ErrUnknown
	case p.conn == nil:
		return awaited{}, gate.ErrNotConnected
	case p.report.Phase != gate.Running:
		return awaited{}, gate.ErrNotRunning
	}
	if err := p.send(gate.Order{Aside: o}); err != nil {
		return awaited{}, fmt.Errorf("send command: %w", err)
	}
	r := awaited{peer: p, answer: make(chan gate.Outcome, 1)}
	s.register.asides[o.ID] = r
	return r, nil
}
