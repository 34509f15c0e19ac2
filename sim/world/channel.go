// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Channel is the network between the agents of pods that support each other. Its faults are apart from those of
// the requests to the API server: an outage of the one is none of the other.
type Channel struct {
	// Lost and Slow are the chances that a message is lost, and that it takes up to [slowest].
	Lost, Slow float64
}

// slowest bounds the way of a slow message between two agents. It is longer than the time between two asks, so
// asks and answers overtake each other.
const slowest = 5 * time.Second

// contactPort is the port at which an agent answers other agents.
const contactPort = 9440

// trip draws the time of a message's way, and whether it is lost.
func (c Channel) trip(r *rand.Rand) (takes time.Duration, lost bool) {
	takes = engine.Between(r, 50*time.Microsecond, instant)
	if engine.Chance(r, c.Slow) {
		takes += engine.Between(r, 0, slowest)
	}
	return takes, engine.Chance(r, c.Lost)
}

// passes reports whether packets of the node reach the other node.
func (n *Node) passes(to *Node) bool {
	between := n == to || !n.CutOut && !to.CutIn && !n.apart[to]
	return n.Up && to.Up && n.heir == nil && to.heir == nil && between
}

// supports reports whether pods of the template support each other.
func (t Template) supports() bool { return t.Failsafe.Outage > 0 && !t.Failsafe.Alone }

// plug gives a pod that needs one the lowest free address, perhaps that of a pod that is gone.
func (p *Pod) plug() {
	for last := byte(1); p.supports() && !p.contact.IsValid(); last++ {
		if a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), contactPort); p.w.at(a) == nil {
			p.contact = a
		}
	}
}

// at returns the pod that has the address; nil for none.
func (w *World) at(contact netip.AddrPort) *Pod {
	i := slices.IndexFunc(w.Pods, func(p *Pod) bool { return p.contact == contact })
	if i < 0 {
		return nil
	}
	return w.Pods[i]
}

// said is the answer to a message.
type said struct {
	text string
	err  error
}

// ask is agent.Outside.Ask: it delivers the message to the process that lives in the pod with the address when the
// message arrives, and its answer back. A lost message, like one to a node that is dead or cut off, has no answer.
func (a *AgentProcess) ask(ctx context.Context, contact netip.AddrPort, message string) (string, error) {
	if !a.Enter() {
		return "", engine.ErrDead
	}
	w, from := a.Pod.w, a.Pod.Node
	r := w.Source(fmt.Sprint(a.Name, " asks ", contact, w.Now()))
	there, lost := w.Channel.trip(r)
	back, unanswered := w.Channel.trip(r)
	tick := engine.Between(r, 1, time.Microsecond)
	reply, hungUp := make(chan said, 1), make(chan struct{})
	tell := func(by *Node, what said) {
		if !unanswered && by.passes(from) {
			w.After(back, func() { reply <- what })
		}
	}
	w.After(there, func() {
		p := w.at(contact)
		switch {
		case p == nil || lost || !from.passes(p.Node):
		case p.Agent() == nil || !p.Agent().Up():
			tell(p.Node, said{err: apiserver.ErrUnreachable})
		default:
			by := p.Agent()
			by.WhenThawed(func() { w.Group.Go(func() { by.answer(message, hungUp, tell) }) })
		}
	})
	a.Leave()
	what := said{}
	select {
	case what = <-reply:
	case <-ctx.Done():
		<-time.After(tick) // as in the sender of package apiserver
		what.err = ctx.Err()
	case <-a.Ctx.Done():
	}
	w.After(back, func() { close(hungUp) })
	if !a.Enter() {
		return "", engine.ErrDead
	}
	a.Leave()
	return what.text, what.err
}

// answer lets the agent answer a message. A process that is frozen sends its answer when it thaws.
func (a *AgentProcess) answer(message string, hungUp <-chan struct{}, tell func(*Node, said)) {
	ctx, cancel := context.WithCancel(a.Ctx)
	defer cancel()
	a.Pod.w.Group.Go(func() {
		select {
		case <-hungUp:
			cancel()
		case <-ctx.Done():
		}
	})
	text, err := a.agent.Answer(ctx, message)
	if !a.Enter() {
		return
	}
	defer a.Leave()
	if text != "" {
		a.Pod.w.Note(a.Name, "answers %.80q", message)
	}
	tell(a.Pod.Node, said{text, err})
}
