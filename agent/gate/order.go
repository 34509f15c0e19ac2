// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

var (
	// ErrNotRunning: the shim has no child, or an ending one, beside which
	// something could run.
	ErrNotRunning = errors.New("the application does not run")
	// ErrNotRun: the command could not be started, or not be run to its end.
	ErrNotRun = errors.New("the command was not run")
)

// Result is what became of a command that was run beside the child.
type Result struct {
	// Code is its exit code, 128+n after a signal.
	Code int
	// Output is what it wrote to both its outputs, as far as it was kept.
	Output []byte
	// TimedOut: it was killed because its time was up.
	TimedOut bool
}

// runOrder asks for a command to be run beside the child. It is done under the
// id, once.
type runOrder struct {
	ID      string        `json:"id"`
	Command []string      `json:"command"`
	Timeout time.Duration `json:"timeout"`
}

func (r *runOrder) check() error {
	if r.ID == "" || len(r.ID) > 64 || len(r.Command) == 0 || r.Timeout <= 0 || r.Timeout > longest {
		return fmt.Errorf("%w: run %d words in %v", errMessage, len(r.Command), r.Timeout)
	}
	return nil
}

// ran answers a runOrder. Error is empty if there is an exit code.
type ran struct {
	ID       string `json:"id"`
	Code     int    `json:"code"`
	Output   []byte `json:"output,omitempty"`
	TimedOut bool   `json:"timedOut,omitempty"`
	Error    string `json:"error,omitempty"`
}

// mostOrdered bounds how many commands run at once on the agent's order: each
// of a container's probes, twice over.
const mostOrdered = 6

// obey runs a command beside the child.
func (s *shim) obey(r *runOrder) {
	answer := func(o outcome) {
		s.ordered--
		a := ran{ID: r.ID, Code: o.code, Output: o.output, TimedOut: o.late}
		if o.err != nil {
			a.Error = o.err.Error()
		}
		if s.conn != nil {
			_ = s.conn.send(message{Ran: &a})
		}
	}
	s.ordered++
	switch {
	case s.child == 0 || s.self.Phase != Running || s.frozen():
		answer(outcome{err: ErrNotRunning})
	case s.ordered > mostOrdered:
		answer(outcome{err: errors.New("too much runs beside the application already")})
	default:
		env := s.environ()
		s.launch(&aside{argv: expandAll(r.Command, env), env: env, until: Now() + r.Timeout, done: answer})
	}
}

// expandAll expands $(NAME) in the words of a command as the kubelet does.
func expandAll(words, env []string) []string {
	values := map[string]string{}
	for _, v := range slices.Backward(env) {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = expand(word, values)
	}
	return out
}

// expand: $(NAME) is the value, or stays if there is none; $$ is one dollar.
func expand(word string, values map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(word, "$")
		out.WriteString(before)
		switch {
		case !found:
			return out.String()
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			word = after[1:]
			continue
		}
		word = after
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		value, known := values[name]
		if closed && strings.HasPrefix(after, "(") {
			word = rest
			if known {
				out.WriteString(value)
			} else {
				out.WriteString("$(" + name + ")")
			}
			continue
		}
		out.WriteByte('$')
	}
}

// run is a command whose outcome is waited for.
type run struct {
	peer   *peer
	answer chan ran // has room for the only one
}

// answerSlack is how long after a command's time the answer may come: it is
// killed at once and reaped within a few milliseconds, unless the shim is
// starved; then its beats are late as well.
const answerSlack = silence

// RunAside runs a command beside the shim's child, as the child's user in its
// place, with $(NAME) expanded from its environment; without input, and killed
// when its time is up. An error means that there is no exit code.
func (s *Server) RunAside(ctx context.Context, id ShimID, command []string, timeout time.Duration) (Result, error) {
	o := runOrder{ID: rand.Text(), Command: command, Timeout: timeout}
	if err := o.check(); err != nil {
		return Result{}, err
	}
	r, err := s.orderRun(id, &o)
	if err != nil {
		return Result{}, err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.runs, o.ID)
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

func (s *Server) orderRun(id ShimID, o *runOrder) (run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[id]
	switch {
	case p == nil:
		return run{}, ErrUnknown
	case p.conn == nil:
		return run{}, ErrNotConnected
	case p.report.Phase != Running:
		return run{}, ErrNotRunning
	}
	if err := p.conn.send(order{Run: o}); err != nil {
		return run{}, fmt.Errorf("send command: %w", err)
	}
	r := run{peer: p, answer: make(chan ran, 1)}
	s.runs[o.ID] = r
	return r, nil
}

// answered hands on what became of a command. Called with the mutex held.
func (s *Server) answered(p *peer, a *ran) {
	if r, ok := s.runs[a.ID]; ok && r.peer == p {
		delete(s.runs, a.ID)
		r.answer <- *a
	}
}

// unanswered: no more answers come on the peer's connection. Called with the
// mutex held.
func (s *Server) unanswered(p *peer) {
	for id, r := range s.runs {
		if r.peer == p {
			delete(s.runs, id)
			close(r.answer)
		}
	}
}
