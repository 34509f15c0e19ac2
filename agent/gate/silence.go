// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"time"
)

// listenForSilence marks the shims whose beats stopped. If this process was
// frozen itself, they get the time to be heard first.
func (s *Server) listenForSilence(ctx context.Context) {
	every := s.cfg.Silence / 5
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		awake := now.Sub(last) < 2*every
		last = now
		s.mu.Lock()
		for _, p := range s.peers {
			switch {
			case p.conn == nil:
			case !awake:
				p.heard = now
			case now.Sub(p.heard) > s.cfg.Silence && !p.report.Silent:
				p.report.Silent = true
				s.outbox.put(p.report, s.ledger)
			}
		}
		s.mu.Unlock()
	}
}
