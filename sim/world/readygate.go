// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/standin"
)

// readyGate is the real gate, and notes each grant in the world's pod.
type readyGate struct {
	*standin.Readiness
	a *agentProcess
}

// Grant implements agent.Gate.
func (g readyGate) Grant(id gate.ShimID, grant gate.Grant) error {
	err := g.Readiness.Grant(id, grant)
	if err == nil {
		g.a.process.w.do(func() { g.a.pod.granted(grant) })
	}
	return err
}

// runReadiness runs the agent's process in a pod of the gate "readiness".
func (a *agentProcess) runReadiness(config agent.Config) error {
	g := standin.NewReadiness(agentMachine{a}.Now)
	config.Gate = readyGate{g, a}
	return a.serve(config, g.Run)
}

// serve runs a gate without shims, and the agent, as cmd/agent does.
func (a *agentProcess) serve(config agent.Config, gate func(context.Context) error) error {
	config.Containers, config.InitContainers, config.Granted = []string{standin.Container}, nil, nil
	config.Leaps = a.leaps
	made, err := agent.New(config)
	must(err)
	a.process.w.do(func() { a.agent = made })
	return agent.Serve(a.process.ctx, gate, func(ctx context.Context) error { return made.Run(ctx, a.stop) })
}
