// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// idle measures the processor time of each agent and of each shim during a time without handovers.
func (b *bench) idle(ctx context.Context, span time.Duration) error {
	pods, err := b.agents(ctx)
	if err != nil {
		return err
	}
	before, err := spent(pods)
	if err != nil {
		return err
	}
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := spent(pods)
	if err != nil {
		return err
	}
	lease, err := b.client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil {
		return err
	}
	list, err := b.pods(ctx)
	if err != nil {
		return err
	}
	type times struct{ agents, shims []time.Duration }
	found := map[string]*times{"holder": {}, "standby": {}}
	for _, pod := range list {
		role := "standby"
		if isHolder(lease.Spec.HolderIdentity, pod) {
			role = "holder"
		}
		p, of := pods[string(pod.UID)], found[role]
		of.agents = append(of.agents, after[p.agent]-before[p.agent])
		of.shims = append(of.shims, after[p.shim]-before[p.shim])
	}
	fmt.Printf("\nProcessor time in milliseconds, user and system, in %v without an event; a lease of 30 s. The median and the maximum of all pods.\n", span)
	fmt.Println("\n| | pods | agent | shim |\n|---|---|---|---|")
	for _, role := range []string{"holder", "standby"} {
		of := found[role]
		fmt.Printf("| %s | %d | %s | %s |\n", role, len(of.agents), median(of.agents), median(of.shims))
	}
	return nil
}

// median returns the text of the median and of the maximum.
func median(all []time.Duration) string {
	slices.Sort(all)
	if len(all) == 0 {
		return "-"
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("%.0f (%.0f)", ms(all[len(all)/2]), ms(all[len(all)-1]))
}

// spent returns the processor time that each process has used since its start, by its PID.
func spent(pods map[string]processes) (map[int]time.Duration, error) {
	found := map[int]time.Duration{}
	for _, p := range pods {
		for _, pid := range []int{p.agent, p.shim} {
			var t unix.Timespec
			// The kernel derives the id of a process's clock from its PID (clock_getcpuclockid(3)).
			if err := unix.ClockGettime(int32(^pid)<<3|2, &t); err != nil {
				return nil, fmt.Errorf("processor time of a process of pod %s: %w", p.pod, err)
			}
			found[pid] = time.Duration(t.Nano())
		}
	}
	return found, nil
}
