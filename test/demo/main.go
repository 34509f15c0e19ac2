// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command demo runs three replicas of Debian's redis-server under one annotation, on
// the test cluster. Then the demo ends the holder in three ways and prints each event
// to the millisecond. With the arguments "example" and a name, the command applies a
// folder of the examples instead.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
	"github.com/metaparticle-io/metaparticle/test/image/public"
)

const (
	namespace = "demo"
	slot      = "singleton.deployment.redis"
	program   = "redis-server"
)

//go:embed redis.yaml
var manifest []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	run := run
	if len(os.Args) == 3 {
		named := map[string]func(context.Context, string) error{"probe": probe, "example": runExample}[os.Args[1]]
		if named != nil {
			run = func(ctx context.Context) error { return named(ctx, os.Args[2]) }
		}
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	d, err := newDemo()
	if err != nil {
		return err
	}
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.annotate(ctx); err != nil {
		return err
	}
	var outcomes []outcome
	for _, fault := range []fault{podDeletion, childKilled, nodeCut} {
		o, err := d.failOver(ctx, fault)
		if err != nil {
			return fmt.Errorf("%s: %w", fault.title, err)
		}
		outcomes = append(outcomes, o)
	}
	d.title("Images for the tutorials: " + strings.Join(public.Tutorials, ", "))
	if err := public.Push(ctx, d.cluster.Registry(), public.Tutorials...); err != nil {
		return err
	}
	d.title("The verdict: when each process ended and started, by the kernel's record")
	fmt.Print("\n" + verdict(outcomes))
	d.title("The cluster stays up. Try next")
	fmt.Printf(`  export KUBECONFIG=%s
  alias kubectl='%s'
  kubectl -n demo get pods -L metaparticle.io/role -o wide
  kubectl -n demo get lease %s -o yaml
  kubectl -n demo describe pod -l metaparticle.io/role=holder
  kubectl -n demo delete pod -l metaparticle.io/role=holder
  kubectl -n demo annotate deployment/redis metaparticle.io/singleton-   # and all three run again
  make cluster-down                                                     # nothing is left behind
The first tutorial runs on this cluster, too, and so do the others: docs/tutorials/worker-runs-once.md
`, d.cluster.Kubeconfig(), d.cluster.Dir()+"/bin/kubectl", slot)
	return nil
}

// prepare deploys redis without any setting of Metaparticle.
func (d *demo) prepare(ctx context.Context) error {
	d.title("redis-server from Debian, three replicas and a Service, nothing prepared for us")
	started := time.Now()
	image, err := oci.Debian(ctx, []string{"redis-server"}, oci.Config{
		Entrypoint: []string{program},
		Cmd:        []string{"--protected-mode", "no", "--save", ""},
		User:       "redis", WorkingDir: "/var/lib/redis", Ports: []string{"6379/tcp"},
	}, oci.Compressed)
	if err != nil {
		return err
	}
	if err := oci.Push(ctx, d.cluster.Registry()+"/demo/redis:7", image); err != nil {
		return err
	}
	fmt.Printf("  image demo/redis:7, entrypoint %s, pushed (%.1f s)\n", program, time.Since(started).Seconds())
	if err := d.clear(ctx, namespace); err != nil {
		return err
	}
	yaml := bytes.ReplaceAll(manifest, []byte("IMAGE"), []byte(lab.RegistryInCluster+"/demo/redis:7"))
	for _, step := range [][]string{
		{"create", "namespace", namespace},
		{"-n", namespace, "apply", "-f", "-"},
		{"-n", namespace, "rollout", "status", "deployment/redis", "--timeout=120s"},
	} {
		if err := d.kubectl(ctx, yaml, step...); err != nil {
			return err
		}
	}
	return d.showPods(ctx)
}

// clear heals the links of all nodes, and deletes the namespace. An interrupted demo may have left
// a cut link or the namespace.
func (d *demo) clear(ctx context.Context, namespace string) error {
	for _, node := range d.cluster.Nodes() {
		if err := d.cluster.Heal(ctx, node); err != nil {
			return err
		}
	}
	return d.quietly(ctx, "delete", "namespace", namespace, "--ignore-not-found")
}

// annotate opts the namespace in and annotates the Deployment, as a user does.
func (d *demo) annotate(ctx context.Context) error {
	d.title("One annotation")
	for _, step := range [][]string{
		{"label", "namespace", namespace, "metaparticle.io/injection=enabled"},
		{"-n", namespace, "annotate", "deployment/redis", "metaparticle.io/singleton=true"},
		{"-n", namespace, "rollout", "status", "deployment/redis", "--timeout=180s"},
	} {
		if err := d.kubectl(ctx, nil, step...); err != nil {
			return err
		}
	}
	if err := d.settled(ctx); err != nil {
		return err
	}
	return d.showPods(ctx)
}

var errNoHolder = errors.New("nobody holds the slot")
