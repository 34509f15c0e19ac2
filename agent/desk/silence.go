// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// silence is the time without a message after which a shim counts as Silent: two and a half
// times the time between two beats.
const silence = 5 * gate.BeatEvery / 2

// listenForSilence reports the connected shims that have sent no message for the time in
// [Config.Silence]. After a suspension of the agent's own process, that time starts anew.
func (s *Server) listenForSilence(ctx context.Context) {
	every := s.cfg.Silence / 5
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last := s.machine.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := s.machine.Now()
		awake := now-last < 2*every
		last = now
		s.mu.Lock()
		for _, p := range s.register.peers {
			switch {
			case p.conn == nil:
			case !awake:
				p.heard = now
			case now-p.heard > s.cfg.Silence && !p.report.Silent:
				p.report.Silent = true
				s.register.report(p)
			}
		}
		s.mu.Unlock()
	}
}
