// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func discard(r io.ReadCloser) (int64, error) {
	defer r.Close()
	return io.Copy(io.Discard, r)
}

// auditEnd returns the present length of the audit log.
func (b *bench) auditEnd() (int64, error) {
	log, err := os.Stat(b.cluster.AuditLog())
	if err != nil {
		return 0, err
	}
	return log.Size(), nil
}

// requests counts each pod's requests during a time without handovers, from the API
// server's audit log.
func (b *bench) requests(ctx context.Context, span time.Duration) error {
	begin, err := b.auditEnd()
	if err != nil {
		return err
	}
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return ctx.Err()
	}
	log, err := os.Open(b.cluster.AuditLog())
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := log.Seek(begin, io.SeekStart); err != nil {
		return err
	}
	counts := map[string]map[string]int{}
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var event struct {
			Verb string
			User struct{ Extra map[string][]string }
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			continue // the last line may be half written
		}
		for _, pod := range event.User.Extra["authentication.kubernetes.io/pod-name"] {
			if counts[pod] == nil {
				counts[pod] = map[string]int{}
			}
			counts[pod][event.Verb]++
		}
	}
	pods, err := b.pods(ctx)
	if err != nil {
		return err
	}
	lease, err := b.client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil {
		return err
	}
	fmt.Printf("\nRequests to the API server in %v without an event, by its audit log; a lease of 30 s.\n", span)
	fmt.Println("\n| | get | update | watch | patch | all |\n|---|---|---|---|---|---|")
	for _, role := range []string{"holder", "standby"} {
		for _, pod := range pods {
			if (role == "holder") == isHolder(lease.Spec.HolderIdentity, pod) {
				c := counts[pod.Name]
				all := 0
				for _, n := range c {
					all += n
				}
				fmt.Printf("| %s | %d | %d | %d | %d | %d |\n", role, c["get"], c["update"], c["watch"], c["patch"], all)
			}
		}
	}
	return nil
}

func isHolder(identity *string, pod corev1.Pod) bool {
	return identity != nil && *identity == api.Identity(pod.Name, string(pod.UID))
}
