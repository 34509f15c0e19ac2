// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// printSpent prints the processor time of agents and shims between two measurements.
func printSpent(span time.Duration, roles map[string][]corev1.Pod, of map[string]processes, before, after map[int]time.Duration) {
	fmt.Printf("\nProcessor time in milliseconds, user and system, in %v without an event; a lease of 30 s. The median and the maximum of all pods.\n", span)
	fmt.Println("\n| | pods | agent | shim |\n|---|---|---|---|")
	for _, role := range []string{"holder", "standby"} {
		var agents, shims []time.Duration
		for _, pod := range roles[role] {
			p := of[string(pod.UID)]
			agents = append(agents, after[p.agent]-before[p.agent])
			shims = append(shims, after[p.shim]-before[p.shim])
		}
		fmt.Printf("| %s | %d | %s | %s |\n", role, len(agents), median(agents), median(shims))
	}
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
