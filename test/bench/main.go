// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench prints figures of docs/evidence/benchmarks.md, measured on the test cluster: handovers beside
// the floor and client-go's elector, starts with and without a gate, and what idle pods cost.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 5 && os.Args[1] == "floor":
		err = floor(ctx, os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 5 && os.Args[1] == "elector":
		err = elector(ctx, os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 5 && os.Args[1] == "connect":
		err = connect(ctx, os.Args[4], os.Stdin, os.Stdout)
	default:
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 1000, "handovers")
	peers := flag.Int("peer-rounds", 30, "handovers of client-go's elector, a few seconds each")
	starts := flag.Int("starts", 30, "starts of a pod, with and without the annotation; with -only-starts nothing else")
	only := flag.Bool("only-starts", false, "measure nothing but starts")
	standbys := flag.Int("standbys", fewestStandbys, "pods that wait for the slot")
	wait := flag.Duration("apart", apart, "the wait between two handovers")
	named := flag.Bool("named", false, "each yield names the next holder")
	handovers := flag.Bool("only-handovers", false, "measure nothing but handovers")
	held := flag.Bool("only-held", false, "measure nothing but connections that wait during handovers")
	idle := flag.Bool("only-idle", false, "measure nothing but requests and processor time of a minute without an event")
	load := flag.Bool("only-load", false, "measure nothing but the first requests of the pods of a load test")
	rolling := flag.Bool("only-rollouts", false, "count nothing but writes of Leases in rollouts, and measure deletions of a single replica")
	images := flag.String("images", "../out/images", "the OCI layouts that make images wrote")
	flag.Parse()
	if *standbys < fewestStandbys {
		return fmt.Errorf("-standbys is %d: at least %d are needed", *standbys, fewestStandbys)
	}
	if *wait < apart {
		return fmt.Errorf("-apart is %s: at least %s is needed", *wait, apart)
	}
	b, err := newBench(ctx, *standbys, *named)
	if err != nil {
		return err
	}
	defer b.remove()
	b.apart = *wait

	fmt.Printf("Kubernetes %s, etcd without fsync, 3 nodes in one machine of %d CPUs, %s\n\n",
		lab.KubernetesVersion, runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	began := time.Now()
	if *load {
		return b.together(ctx)
	}
	if *rolling {
		return b.rollouts(ctx, *rounds)
	}
	if *held {
		return b.held(ctx, *rounds)
	}
	if err := b.deploy(ctx); err != nil {
		return err
	}
	switch {
	case *only:
		return b.starts(ctx, *starts)
	case *handovers:
		return b.handovers(ctx, *rounds, 0)
	case *idle:
		return b.idle(ctx, time.Minute)
	}
	if err := b.handovers(ctx, *rounds, *peers); err != nil {
		return err
	}
	if err := b.idle(ctx, time.Minute); err != nil {
		return err
	}
	if err := b.starts(ctx, *starts); err != nil {
		return err
	}
	if err := b.weights(*images); err != nil {
		return err
	}
	fmt.Printf("\n(%.0f s)\n", time.Since(began).Seconds())
	return nil
}
