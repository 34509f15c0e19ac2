// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
)

// demo is the cluster with two clients: kubectl for the steps that a person sees, and a Go
// client for the measurements.
type demo struct {
	cluster *lab.Cluster
	client  kubernetes.Interface
	step    int
}

func newDemo() (*demo, error) {
	cluster, err := lab.Open("")
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("the demo cuts nodes off, so it runs on the project's own cluster (make cluster): %w", err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &demo{cluster: cluster, client: client}, nil
}

func (d *demo) title(text string) {
	d.step++
	fmt.Printf("\n%d. %s\n", d.step, text)
}

// kubectl runs a command that a person could run, and prints the command and its output.
func (d *demo) kubectl(ctx context.Context, stdin []byte, args ...string) error {
	fmt.Printf("  $ kubectl %s\n", strings.Join(args, " "))
	cmd := d.cluster.Kubectl(ctx, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = indent{}, indent{}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// The method "quietly" runs a kubectl command, and prints neither the command nor its output.
func (d *demo) quietly(ctx context.Context, args ...string) error {
	if out, err := d.cluster.Kubectl(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// indent prints indented lines, below the command that wrote them.
type indent struct{}

func (indent) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		fmt.Print("    ", line)
	}
	return len(p), nil
}
