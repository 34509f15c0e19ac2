// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
)

// written counts the stored writes of a period.
type written struct {
	renewals, slot, next int
}

// rollouts counts the writes of Leases in rollouts of a Deployment with three replicas, and measures how
// long the deletion of a single replica takes.
func (b *bench) rollouts(ctx context.Context, rounds int) error {
	deploy := func(replicas int) error {
		yaml := []byte(strings.NewReplacer("IMAGE", lab.RegistryInCluster+"/bench/app:latest", "STARTS", "0s", "STOPS", "0s",
			"REPLICAS", strconv.Itoa(replicas)).Replace(heldManifest))
		return b.run(ctx, yaml, "rollout", "status", "deployment/app", "--timeout=900s")
	}
	if err := deploy(3); err != nil {
		return err
	}
	begin, err := b.auditEnd()
	if err != nil {
		return err
	}
	began := time.Now()
	for range rounds {
		if err := b.kubectl(ctx, nil, "-n", namespace, "rollout", "restart", "deployment/app"); err != nil {
			return err
		}
		if err := b.kubectl(ctx, nil, "-n", namespace, "rollout", "status", "deployment/app", "--timeout=900s"); err != nil {
			return err
		}
	}
	took := time.Since(began)
	w := written{renewals: int(took / (api.DefaultLeaseDuration / 6))}
	err = b.audit(begin, func(event audited) {
		switch _, uid := event.pod(); {
		case event.Verb != "update" || event.ResponseStatus.Code != http.StatusOK || uid == "":
		case api.IsNextLease(event.ObjectRef.Name):
			w.next++
		default:
			w.slot++
		}
	})
	if err != nil {
		return err
	}
	if err := deploy(1); err != nil {
		return err
	}
	var deletions samples.Times
	for range rounds {
		if err := b.kubectl(ctx, nil, "-n", namespace, "rollout", "status", "deployment/app", "--timeout=900s"); err != nil {
			return err
		}
		began := time.Now()
		if err := b.kubectl(ctx, nil, "-n", namespace, "delete", "pod", "-l", "app=app", "--wait=true"); err != nil {
			return err
		}
		deletions = append(deletions, time.Since(began))
	}
	per := func(n int) float64 { return float64(n) / float64(rounds) }
	fmt.Printf("%d rollouts of 3 replicas took %v each. Writes of pods for each: %.1f of the slot's Lease, of which about %.1f are regular renewals, and %.1f of the next Lease.\n",
		rounds, (took / time.Duration(rounds)).Round(time.Second), per(w.slot), per(w.renewals), per(w.next))
	fmt.Println("\n| | rounds | p50 | p99 | max |\n|---|---|---|---|---|")
	deletions.Print("deletion of a single replica, until its pod is gone")
	return nil
}
