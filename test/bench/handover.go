// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// settle is the wait before the start of the next pod. On a small machine the late work
// of a start (writing statuses) takes long. Without the wait that work would count in
// the next start.
const settle = 500 * time.Millisecond

// apart is the least wait between two handovers. On average a pod may send two requests a second for
// its slot (claim.PerMinute). A handover takes up to three requests of each pod. With a shorter
// wait the benchmark would measure the bound on the requests.
//
// Each standby writes the name of the new holder into its pod's status up to show.WordsDelay later.
// With many standbys and the least wait, these writes of the last handover slow down the next.
const apart = 2 * time.Second

// handovers measures the handovers of this project and of client-go's elector. The function also
// measures the floor: the API server's part of a handover.
func (b *bench) handovers(ctx context.Context, rounds, peers int) error {
	if err := b.credentials(ctx); err != nil {
		return err
	}
	node := b.cluster.Nodes()[0]
	least, err := b.onNode(ctx, node, "floor", rounds)
	if err != nil {
		return err
	}
	begin, err := b.auditEnd()
	if err != nil {
		return err
	}
	rounded, err := b.handover(ctx, rounds, b.apart)
	if err != nil {
		return err
	}
	var ours samples.Times
	for _, h := range rounded {
		ours = append(ours, h.exec-h.exit)
	}
	writes, err := b.writes(begin)
	if err != nil {
		return err
	}
	peer := map[string]samples.Times{}
	if peers > 0 {
		if peer, err = b.onNode(ctx, node, "elector", peers); err != nil {
			return err
		}
	}
	fmt.Println("Handover, in milliseconds: from the old application's exit to the new one's exec, both stamped by the kernel.")
	fmt.Println("\n| | rounds | p50 | p99 | max |\n|---|---|---|---|---|")
	successor := ""
	if b.named {
		successor = ", each yield names the next holder"
	}
	ours.Print(fmt.Sprintf("this project with %d pods, without the time of the drain%s, %s between two rounds", b.standbys+1, successor, b.apart))
	least["release+event+acquire"].Print(fmt.Sprintf("floor: releasing PUT, its watch event, acquiring PUT, by plain HTTP, %s between two rounds", apart))
	least["put"].Print("one PUT of the floor")
	if peers > 0 {
		peer["handover"].Print("client-go's elector, ReleaseOnCancel, 15/10/2 s: from its cancellation to another leader's start")
	}
	return printSteps(rounded, writes)
}

// handover makes the holder yield in each round, and returns the handovers. After each round
// handover waits for the time in the argument "apart".
func (b *bench) handover(ctx context.Context, rounds int, apart time.Duration) ([]handed, error) {
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

	var taken []handed
	for len(taken) < rounds {
		if err := b.yield(ctx, agents, holder); err != nil {
			return nil, fmt.Errorf("yield: %w", err)
		}
		h, err := round(ctx, agents, events, failed)
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", len(taken), err)
		}
		holder, taken = h.next, append(taken, h)
		select {
		case <-time.After(apart):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return taken, nil
}

// yield makes the holder give up the slot. If the field "named" is true, yield also names a random
// standby as the successor.
func (b *bench) yield(ctx context.Context, agents map[string]processes, holder string) error {
	if !b.named {
		return syscall.Kill(agents[holder].agent, syscall.SIGUSR1)
	}
	lease, err := b.client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil {
		return err
	}
	next := ""
	for uid := range agents { // a map has a random order, so the successor is a random standby
		if uid != holder {
			next = api.Identity(agents[uid].pod, uid)
		}
	}
	word, err := json.Marshal(api.Yield{Hold: lease.Annotations[api.HoldAnnotation], Successor: next}.String())
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, api.YieldAnnotation, word)
	_, err = b.client.CoordinationV1().Leases(namespace).Patch(ctx, slot, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// round returns one handover, from the old application's exit to the new one's exec. If the new
// application starts before that exit, round returns an error.
func round(ctx context.Context, agents map[string]processes, events <-chan witness.Event, failed <-chan error) (handed, error) {
	var h handed
	limit := time.After(time.Minute)
	for {
		select {
		case e := <-events:
			_, ours := agents[e.Process.Pod]
			switch {
			case !ours:
			case e.Kind == witness.Exit:
				h.exit, h.old = e.At, e.Process.Pod
			case h.exit == 0:
				return h, errors.New("the next application started before the last was dead")
			default:
				h.exec, h.next = e.At, e.Process.Pod
				return h, nil
			}
		case err := <-failed:
			return h, err
		case <-limit:
			return h, errors.New("no handover within a minute")
		case <-ctx.Done():
			return h, ctx.Err()
		}
	}
}

// processes are the PIDs of a pod's agent and shim on the host.
type processes struct {
	pod         string
	agent, shim int
}

// agents returns the agent's and the shim's process of each pod, by the pod's UID.
func (b *bench) agents(ctx context.Context) (map[string]processes, error) {
	pods, err := b.pods(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]processes{}
	for _, pod := range pods {
		found[string(pod.UID)] = processes{pod: pod.Name}
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
