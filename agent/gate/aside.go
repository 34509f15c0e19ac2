// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"
)

// answerSlack is how long after a command's timeout the server still waits for the answer. At the
// timeout the shim kills the command and reaps it within a few milliseconds. A shim that gets no
// processor time takes longer, but then its beats ([BeatEvery]) are late as well. So the slack
// equals the time after which a shim without beats counts as silent.
const answerSlack = silence

// RunAside runs a command beside the shim's child, in the same container and as the same
// user. The shim expands $(NAME) in the command from the child's environment. The command
// has no input. The shim kills the command after the timeout. If the exit code is unknown,
// RunAside returns an error.
func (s *Server) RunAside(ctx context.Context, id ShimID, command []string, timeout time.Duration) (Result, error) {
	o := Aside{ID: rand.Text(), Command: command, Timeout: timeout}
	if err := o.check(); err != nil {
		return Result{}, err
	}
	r, err := s.orderAside(id, &o)
	if err != nil {
		return Result{}, err
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
			return Result{}, ErrNotConnected
		case a.Error != "":
			return Result{}, fmt.Errorf("%w: %s", ErrNotRun, a.Error)
		}
		return Result{Code: a.Code, Output: a.Output, TimedOut: a.TimedOut}, nil
	case <-ctx.Done():
		return Result{}, fmt.Errorf("%w: %w", ErrNotRun, context.Cause(ctx))
	}
}

func (s *Server) orderAside(id ShimID, o *Aside) (awaited, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.register.find(id)
	switch {
	case p == nil:
		return awaited{}, ErrUnknown
	case p.conn == nil:
		return awaited{}, ErrNotConnected
	case p.report.Phase != Running:
		return awaited{}, ErrNotRunning
	}
	if err := p.send(Order{Aside: o}); err != nil {
		return awaited{}, fmt.Errorf("send command: %w", err)
	}
	r := awaited{peer: p, answer: make(chan Outcome, 1)}
	s.register.asides[o.ID] = r
	return r, nil
}

// asides are the commands for whose answers RunAside waits, by the id of the order.
type asides map[string]awaited

// awaited is a command for whose answer RunAside waits.
type awaited struct {
	peer   *peer
	answer chan Outcome // the buffer has room for one answer
}

// answered passes the outcome of a command to RunAside.
func (all asides) answered(p *peer, a *Outcome) {
	if one, ok := all[a.ID]; ok && one.peer == p {
		delete(all, a.ID)
		one.answer <- *a
	}
}

// unanswered ends the waits for answers of a shim whose connection has ended.
func (all asides) unanswered(p *peer) {
	for id, one := range all {
		if one.peer == p {
			delete(all, id)
			close(one.answer)
		}
	}
}
