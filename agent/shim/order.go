// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
)

// mostOrdered bounds how many commands run at once on the agent's order: each
// of a container's probes, twice over.
const mostOrdered = 6

// obey runs a command beside the child.
func (s *shim) obey(r *gate.Run) {
	answer := func(o outcome) {
		s.ordered--
		a := gate.Ran{ID: r.ID, Code: o.code, Output: o.output, TimedOut: o.late}
		if o.err != nil {
			a.Error = o.err.Error()
		}
		if s.conn != nil {
			_ = s.sendMessage(gate.Message{Ran: &a})
		}
	}
	s.ordered++
	switch {
	case s.child == 0 || s.self.Phase != gate.Running || s.frozen():
		answer(outcome{err: gate.ErrNotRunning})
	case s.ordered > mostOrdered:
		answer(outcome{err: errors.New("too much runs beside the application already")})
	default:
		env := s.environ()
		s.launch(&aside{argv: expandAll(r.Command, env), env: env, until: host.Now() + r.Timeout, done: answer})
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
