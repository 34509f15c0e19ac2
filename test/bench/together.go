// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/image/public"
)

// together measures how far apart the pods of a load test (examples/load) send their first requests.
func (b *bench) together(ctx context.Context) error {
	if err := public.Push(ctx, b.cluster.Registry(), "python:3.11-slim-bookworm"); err != nil {
		return err
	}
	load, err := os.ReadFile("../examples/load/load.yaml")
	if err != nil {
		return err
	}
	for _, step := range [][]string{
		{"delete", "namespace", namespace, "--ignore-not-found"},
		{"create", "namespace", namespace},
		{"label", "namespace", namespace, api.InjectionLabel + "=" + api.InjectionEnabled},
		{"apply", "-f", "../examples/load/shop.yaml", "-n", namespace},
		{"rollout", "status", "deployment/shop", "--timeout=900s", "-n", namespace},
	} {
		if err := b.kubectl(ctx, nil, step...); err != nil {
			return err
		}
	}
	fmt.Println("From the first request of all pods to the first request of each pod, in milliseconds, by the clock that all nodes share.")
	fmt.Println("\n| | first requests | p50 | p99 | max |\n|---|---|---|---|---|")
	for _, run := range []struct{ pods, rounds int }{{4, 8}, {32, 2}} {
		pods := run.pods
		size := strconv.Itoa(pods)
		sized := strings.NewReplacer("barrier/start=4", "barrier/start="+size, "barrier/end=4", "barrier/end="+size,
			"completions: 4", "completions: "+size, "parallelism: 4", "parallelism: "+size).Replace(string(load))
		if err := b.kubectl(ctx, []byte(sized), "apply", "-f", "-", "-n", namespace); err != nil {
			return err
		}
		err := b.kubectl(ctx, nil, "set", "env", "cronjob/load", "-n", namespace,
			"SECONDS=2", "P99_MS=10000", "REQUESTS_PER_SECOND="+strconv.Itoa(2*pods))
		if err != nil {
			return err
		}
		var apart samples.Times
		for round := range run.rounds {
			times, err := b.firsts(ctx, fmt.Sprintf("load-%d-%d", pods, round), pods)
			if err != nil {
				return fmt.Errorf("%d pods, round %d: %w", pods, round, err)
			}
			for _, t := range times {
				apart = append(apart, t-slices.Min(times))
			}
		}
		apart.Print(size + " pods")
	}
	return nil
}

// sentAt is what a pod of the load test prints about its first request.
var sentAt = regexp.MustCompile(`was sent at ([0-9.]+)`)

// firsts runs the load test once, and returns when each pod sent its first request.
func (b *bench) firsts(ctx context.Context, job string, pods int) (times []time.Duration, err error) {
	if err := b.kubectl(ctx, nil, "create", "job", "--from=cronjob/load", job, "-n", namespace); err != nil {
		return nil, err
	}
	if err := b.kubectl(ctx, nil, "wait", "--for=condition=complete", "job/"+job, "--timeout=900s", "-n", namespace); err != nil {
		return nil, err
	}
	list, err := b.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "job-name=" + job})
	if err != nil {
		return nil, err
	}
	for _, pod := range list.Items {
		log, err := b.cluster.Kubectl(ctx, "logs", pod.Name, "-c", "load", "-n", namespace).Output()
		if err != nil {
			return nil, err
		}
		found := sentAt.FindSubmatch(log)
		if found == nil {
			return nil, fmt.Errorf("pod %s sent no first request: %s", pod.Name, log)
		}
		seconds, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			return nil, err
		}
		times = append(times, time.Duration(seconds*float64(time.Second)))
	}
	if len(times) != pods {
		return nil, errors.New("a pod was replaced")
	}
	return times, b.kubectl(ctx, nil, "delete", "job", job, "--cascade=foreground", "-n", namespace)
}
