// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command hostile prints the cost of hostile pods for the webhook. The command also prints how
// the webhook answers calls for ordinary pods while the hostile calls are in flight. Two webhook
// processes share a thousand hostile calls of one kind, which arrive together. Then the processes
// share the calls of the next kind, and at the end the calls of all kinds together. Each process
// has the real handler, image resolver and bounds, and a memory cgroup with the limit of
// manifests/webhook.yaml.
//
// The figures do not include TLS between the API server and the webhook, nor the
// handler's read of the owner. After an answer with status 429, the sender repeats its call as the
// API server does: a second later, and for ten seconds at most.
//
// The senders, the registries and the webhook processes share one machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	replica := flag.String("replica", "", "be a replica: the registries that may be asked without TLS")
	calls := flag.Int("calls", 1000, "hostile calls of each kind")
	good := flag.Int("good", 4, "senders of ordinary pods")
	manifest := flag.String("manifest", "../../../manifests/webhook.yaml", "the webhook's manifest, for its memory limit")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *replica != "" {
		err = serve(ctx, strings.Split(*replica, ","))
	} else {
		err = run(ctx, *calls, *good, *manifest)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, calls, good int, manifest string) error {
	limit, err := memoryLimit(manifest)
	if err != nil {
		return err
	}
	registries, err := startRegistries(ctx)
	if err != nil {
		return err
	}
	defer registries.stop()
	kinds := registries.kinds(calls)
	var replicas []*process
	defer func() {
		for _, r := range replicas {
			r.end()
		}
	}()
	for n := range 2 {
		r, err := start(ctx, n, limit, registries.hosts())
		if err != nil {
			return fmt.Errorf("start replica: %w", err)
		}
		replicas = append(replicas, r)
	}
	fmt.Printf("Two replicas, memory limit %d MiB each (%s); %d calls at once of each kind; %d senders of ordinary pods.\n",
		limit>>20, replicas[0].enforced, calls, good)
	fmt.Println("\n| hostile calls | answers to these calls | seconds | ordinary pods | ordinary pods not admitted | p50 ms | p99 ms | max ms | peak MiB |\n|---|---|---|---|---|---|---|---|---|")
	s := &senders{replicas: replicas, registries: registries, good: good}
	if err := s.wave(ctx, "none", nil, 5*time.Second); err != nil {
		return err
	}
	for _, k := range kinds {
		if err := s.wave(ctx, k.name, k.calls, 0); err != nil {
			return err
		}
	}
	var all [][]byte
	for i := range calls {
		for _, k := range kinds {
			all = append(all, k.calls[i])
		}
	}
	if err := s.wave(ctx, "all kinds above at once", all, 0); err != nil {
		return err
	}
	var peaks []string
	for _, r := range replicas {
		peak, err := r.peak()
		if err != nil {
			return err
		}
		peaks = append(peaks, fmt.Sprintf("%d MiB resident, %s", peak>>20, r.charged()))
	}
	fmt.Printf("\nPeak of each replica: %s; limit %d MiB.\n", strings.Join(peaks, "; "), limit>>20)
	return nil
}

// quantile returns the quantile q of sorted durations as a text, in milliseconds.
func quantile(sorted []time.Duration, q float64) string {
	if len(sorted) == 0 {
		return "–"
	}
	d := sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
	return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000)
}

// summary lists the answers with their counts, the most frequent answer first.
func summary(answers map[string]int) string {
	var names []string
	for name := range answers {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return answers[b] - answers[a] })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, answers[name])
	}
	return strings.Join(names, ", ")
}
