// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func discard(r io.ReadCloser) (int64, error) {
	defer r.Close()
	return io.Copy(io.Discard, r)
}

// idle measures each pod's requests and processor time during a time without handovers.
func (b *bench) idle(ctx context.Context, span time.Duration) error {
	begin, err := b.auditEnd()
	if err != nil {
		return err
	}
	processes, err := b.agents(ctx)
	if err != nil {
		return err
	}
	before, err := spent(processes)
	if err != nil {
		return err
	}
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := spent(processes)
	if err != nil {
		return err
	}
	pods, err := b.pods(ctx)
	if err != nil {
		return err
	}
	lease, err := b.client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil {
		return err
	}
	roles := map[string][]corev1.Pod{}
	for _, pod := range pods {
		role := "standby"
		if isHolder(lease.Spec.HolderIdentity, pod) {
			role = "holder"
		}
		roles[role] = append(roles[role], pod)
	}
	if err := b.requests(begin, span, roles); err != nil {
		return err
	}
	printSpent(span, roles, processes, before, after)
	return nil
}

// requests prints each pod's requests since the position "begin" of the API server's audit log.
func (b *bench) requests(begin int64, span time.Duration, roles map[string][]corev1.Pod) error {
	counts := map[string]map[string]int{}
	err := b.audit(begin, func(event audited) {
		pod, _ := event.pod()
		if counts[pod] == nil {
			counts[pod] = map[string]int{}
		}
		counts[pod][event.Verb]++
	})
	if err != nil {
		return err
	}
	fmt.Printf("\nRequests to the API server in %v without an event, by its audit log; a lease of 30 s.\n", span)
	fmt.Println("\n| | get | update | watch | patch | all |\n|---|---|---|---|---|---|")
	for _, role := range []string{"holder", "standby"} {
		for _, pod := range roles[role] {
			c := counts[pod.Name]
			all := 0
			for _, n := range c {
				all += n
			}
			fmt.Printf("| %s | %d | %d | %d | %d | %d |\n", role, c["get"], c["update"], c["watch"], c["patch"], all)
		}
	}
	return nil
}

func isHolder(identity *string, pod corev1.Pod) bool {
	return identity != nil && *identity == api.Identity(pod.Name, string(pod.UID))
}
