// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/metaparticle-io/metaparticle/agent/status"
)

// Agent holds the slots of one pod. One goroutine, that of [Agent.Run], decides
// everything; the other goroutines send requests and bring answers.
type Agent struct {
	state *state
}

// New makes an agent. No goroutine starts before [Agent.Run].
func New(config Config) (*Agent, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	budget, err := config.Failsafe.Budget(config.LeaseDuration)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return &Agent{state: newState(config, budget)}, nil
}

// Run stands by, holds, drains and releases, again and again, until stop is closed. After that, Run
// ends the present hold. Once each child that ran under this agent's grants is proven dead, Run
// releases the slots, and returns nil. If ctx ends first, Run releases nothing, and each shim kills
// its child before the grant's deadline.
func (a *Agent) Run(ctx context.Context, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.state.group.Wait()
	defer cancel()
	defer a.state.probes.Close()
	a.state.now, a.state.stops = a.state.config.Clock(), stop
	a.state.group.Go(func() { a.state.status.Run(ctx) })
	a.state.group.Go(func() { a.state.events.Run(ctx) })
	for {
		h, err := standby{state: a.state}.run(ctx)
		if h == nil || err != nil {
			var last sync.WaitGroup // one beside the other, because either may use up the grace
			last.Go(func() { a.state.events.Flush(ctx) })
			a.state.awaitDisruption(ctx)
			last.Wait()
			return err
		}
		if err := a.hold(ctx, h); err != nil {
			return err
		}
	}
}

// hold sends the grants and the renewals of h until something ends h. Then hold drains the children
// of h. The release of the slots comes last, and needs proof that every child is dead.
func (a *Agent) hold(ctx context.Context, h *hold) error {
	h.begin()
	defer h.letGo()
	if r := a.state.rollout; r.takesTurns() || r.speaks && (a.state.config.YieldAfter > 0 || a.state.self.Key != "") { // such a pod has one slot
		defer a.state.watchWords(ctx, h)()
	}
	if err := h.run(ctx); err != nil {
		return err
	}
	err := h.drain(ctx)
	if h.disrupts { // not before: after two minutes Kubernetes takes the condition back from a pod that still runs
		a.state.disrupt(ctx, h.end.why.Reason, h.slots)
	}
	return err
}

// Yield makes the agent drain its child within the pod's whole grace, and release the slots.
// After the release, standbys have the time [api.Budget.Retry] in which this pod does not acquire.
// Then this pod competes again.
func (a *Agent) Yield() {
	select {
	case a.state.yields <- struct{}{}:
	default:
	}
}

func (a *Agent) Metrics() *status.Metrics { return a.state.metrics }

// Probes returns the handler of the kubelet's HTTP probes, which the agent serves on a port.
func (a *Agent) Probes() http.Handler { return a.state.probes.Handler() }

// ExecProbes returns the handler of the kubelet's exec probes, which the agent serves on a
// socket in the shared volume.
func (a *Agent) ExecProbes() http.Handler { return a.state.probes.ExecHandler() }

// Answer answers a message that another pod of the slot has sent to this pod's contact.
func (a *Agent) Answer(ctx context.Context, message string) (answer string, err error) {
	return a.state.supporting.answer(ctx, message)
}
