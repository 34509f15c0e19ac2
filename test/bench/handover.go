// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// settle is the pause before the start of the next pod. The late work of a start
// (statuses) takes longer on a small machine, and would count in the next start.
const settle = 500 * time.Millisecond

// apart is the pause between two handovers. A pod sends two requests a second for its
// slot in the long run (claim.PerMinute), and a handover takes up to three of each
// pod. After shorter pauses the benchmark would measure that bound.
const apart = 2 * time.Second

// handovers measures handovers of the product, the floor (the API server's part) and
// client-go's elector.
func (b *bench) handovers(ctx context.Context, rounds, peers int) error {
	if err := b.credentials(ctx); err != nil {
		return err
	}
	node := b.cluster.Nodes()[0]
	least, err := b.onNode(ctx, node, "floor", rounds)
	if err != nil {
		return err
	}
	ours, err := b.handover(ctx, rounds)
	if err != nil {
		return err
	}
	peer, err := b.onNode(ctx, node, "elector", peers)
	if err != nil {
		return err
	}
	fmt.Println("Handover, in milliseconds: from the old application's exit to the new one's exec, both stamped by the kernel.")
	fmt.Println("\n| | rounds | p50 | p99 | max |\n|---|---|---|---|---|")
	ours.Print(fmt.Sprintf("this project, %d pods, drain not counted", replicas))
	least["release+event+acquire"].Print("floor: release PUT, its watch event, acquire PUT, bare HTTP")
	least["put"].Print("of which one PUT")
	peer["handover"].Print("client-go's elector, ReleaseOnCancel, 15/10/2 s: cancelled → another started leading")
	return nil
}

// handover makes the holder yield in each round, and returns the times of the
// handovers.
func (b *bench) handover(ctx context.Context, rounds int) (samples.Times, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := witness.Listen("app")
	if err != nil {
		return nil, err
	}
	agents, err := b.agents(ctx)
	if err != nil {
		return nil, err
	}
	holder := ""
	for _, p := range w.Alive() {
		if _, ours := agents[p.Pod]; ours {
			holder = p.Pod
		}
	}
	if holder == "" {
		return nil, errors.New("nobody holds the slot")
	}
	events, failed := make(chan witness.Event, 64), make(chan error, 1)
	go func() { failed <- w.Run(ctx, func(e witness.Event) { events <- e }) }()

	var taken samples.Times
	for len(taken) < rounds {
		if err := syscall.Kill(agents[holder].agent, syscall.SIGUSR1); err != nil {
			return nil, fmt.Errorf("yield: %w", err)
		}
		next, took, err := round(ctx, agents, events, failed)
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", len(taken), err)
		}
		holder, taken = next, append(taken, took)
		select {
		case <-time.After(apart):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return taken, nil
}

// round returns the time of one handover, from the old application's exit to the new
// one's exec, and the new holder.
func round(ctx context.Context, agents map[string]processes, events <-chan witness.Event, failed <-chan error) (string, time.Duration, error) {
	var died time.Duration
	limit := time.After(time.Minute)
	for {
		select {
		case e := <-events:
			_, ours := agents[e.Process.Pod]
			switch {
			case !ours:
			case e.Kind == witness.Exit:
				died = e.At
			case died == 0:
				return "", 0, errors.New("the next application started before the last was dead")
			default:
				return e.Process.Pod, e.At - died, nil
			}
		case err := <-failed:
			return "", 0, err
		case <-limit:
			return "", 0, errors.New("no handover within a minute")
		case <-ctx.Done():
			return "", 0, ctx.Err()
		}
	}
}

// processes are the PIDs of a pod's agent and shim on the host.
type processes struct{ agent, shim int }

// agents returns the agent's and the shim's process of each pod, by the pod's UID.
func (b *bench) agents(ctx context.Context) (map[string]processes, error) {
	pods, err := b.pods(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]processes{}
	for _, pod := range pods {
		found[string(pod.UID)] = processes{}
	}
	for _, p := range witness.Processes("agent") {
		of, ours := found[p.Pod]
		switch {
		case !ours:
			continue
		case slices.Contains(p.Args, "run"):
			of.agent = p.PID
		case slices.Contains(p.Args, "exec"):
			of.shim = p.PID
		}
		found[p.Pod] = of
	}
	for uid, p := range found {
		if p.agent == 0 || p.shim == 0 {
			return nil, fmt.Errorf("pod %s has no agent or no shim", uid)
		}
	}
	return found, nil
}
