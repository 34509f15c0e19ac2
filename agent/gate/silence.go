// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"time"
)

// silence is the time without a message after which a shim counts as Silent: two and a half
// times the time between two beats.
const silence = 5 * BeatEvery / 2

// listenForSilence reports the connected shims that have sent no message for the time in
// [Config.Silence]. After a suspension of the agent's own process, that time starts anew.
func (s *Server) listenForSilence(ctx context.Context) {
	listener := listener{silence: s.cfg.Silence, grace: s.cfg.Silence / 5}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		s.mu.Lock()
		wait := listener.listen(s.machine.Now(), &s.register)
		s.mu.Unlock()
		timer.Reset(wait)
	}
}

// listener judges which shims are silent. Its timer is as rare as possible, because each timer wakes
// an idle process.
type listener struct {
	// silence is [Config.Silence]. A message that the kernel has for the agent counts only once the
	// agent has read that message. So a shim gets the time in "grace" before the listener calls the
	// shim silent.
	silence, grace time.Duration
	// planned is the instant at which the next call of the method "listen" is due. A call that comes much
	// later, and the first call, count as a call after a suspension.
	planned time.Duration
	// doubted reports that a shim was silent at the last call.
	doubted bool
}

// listen reports silent shims. The result is the time until the next call.
func (l *listener) listen(now time.Duration, r *register) time.Duration {
	suspended := now > l.planned+l.grace
	sure := l.doubted && !suspended
	wait := l.silence
	l.doubted = false
	for _, p := range r.peers {
		left := p.heard + l.silence - now
		switch {
		case p.conn == nil, p.report.Silent:
		case suspended:
			p.heard = now
		case left > 0:
			wait = min(wait, left)
		case sure:
			p.report.Silent = true
			r.report(p)
		default:
			l.doubted = true
		}
	}
	if l.doubted {
		wait = min(wait, l.grace)
	}
	l.planned = now + wait
	return wait
}
