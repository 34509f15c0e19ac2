// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"math/rand/v2"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

type status struct{}

func newStatus(config Config, random *rand.Rand) *status { return &status{} }
func (s *status) run(ctx context.Context)                {}
func (a *Agent) showStandby()                            {}
func (a *Agent) showHolder(h *hold)                      {}
func (a *Agent) showDraining(h *hold)                    {}
func (a *Agent) closePorts() {
	if a.config.Forwarder != nil {
		a.config.Forwarder.Close()
	}
}
func (a *Agent) reported(r gate.Report) { a.shims.note(r) }
