// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/metaparticle-io/metaparticle/agent/show"
)

// appear makes the pod look so, and asks the holder's pod where the look depends on it.
func (a *Agent) appear(ctx context.Context, l show.Look) {
	if !l.Keep {
		a.status.Show(l.Appearance)
	}
	if l.Wake != show.Never {
		a.wakeAt(l.Wake)
	}
	if l.Ask != "" {
		a.askHolder(ctx, l.Ask)
	}
}

func (a *Agent) askHolder(ctx context.Context, address string) {
	a.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, a.self.Budget.RequestTimeout)
		defer cancel()
		err := a.config.Forwarder.Reachable(bounded, address)
		a.post(ctx, func() { a.readiness.Reached(address, err, a.now+a.jitter(a.self.Budget.Renew)) })
	})
}

// seen returns the slots as this standby sees them.
func (a *Agent) seen() []show.Slot {
	var seen []show.Slot
	for _, s := range a.slots {
		r, ok := s.view.Record()
		seen = append(seen, show.Slot{
			Name: s.name, Record: r, Known: ok, Mine: a.self.Mine(r), ExpiresAt: s.view.ExpiresAt(a.self.Budget.Duration),
		})
	}
	return seen
}

// holder returns what the readiness of a holder depends on.
func (a *Agent) holder(h *hold) show.Holder {
	return show.Holder{
		Hold: h.id, Since: h.since, Running: a.shims.Running(h.id), Serves: a.serves(h), Waits: a.probes.Waits(),
	}
}
