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
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

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
	if err := public.Push(ctx, d.cluster.Registry(), public.Tutorials...); err != nil {
		return err
	}
	d.title("The verdict")
	fmt.Print(verdict(outcomes))
	d.title("The cluster stays up. Try next, or a tutorial: docs/tutorials/worker-runs-once.md")
	fmt.Printf(`  export KUBECONFIG=%s PATH=$PATH:%s
  kubectl metaparticle status -n %[3]s
  kubectl metaparticle console                                          # all slots in the browser
  kubectl -n %[3]s annotate deployment/redis metaparticle.io/singleton-   # and all three run again
  make cluster-down                                                     # nothing is left behind
`, d.cluster.Kubeconfig(), d.cluster.Dir()+"/bin", namespace)
	return nil
}

// prepare deploys redis without any setting of Metaparticle.
func (d *demo) prepare(ctx context.Context) error {
	d.title("Three replicas of Debian's redis-server and a Service, nothing prepared for us")
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
	if err := d.clear(ctx, namespace); err != nil {
		return err
	}
	if err := d.quietly(ctx, "create", "namespace", namespace); err != nil {
		return err
	}
	yaml := bytes.ReplaceAll(manifest, []byte("IMAGE"), []byte(lab.RegistryInCluster+"/demo/redis:7"))
	if err := d.kubectl(ctx, io.Discard, yaml, "-n", namespace, "apply", "-f", "-"); err != nil {
		return err
	}
	return d.quietly(ctx, "-n", namespace, "rollout", "status", "deployment/redis", "--timeout=120s")
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
	} {
		if err := d.kubectl(ctx, io.Discard, nil, step...); err != nil {
			return err
		}
	}
	fmt.Println("  So it warns: the three old pods run redis until this rollout has replaced them. From then on, one pod at a time.")
	if err := d.quietly(ctx, "-n", namespace, "rollout", "status", "deployment/redis", "--timeout=180s"); err != nil {
		return err
	}
	if err := d.settled(ctx); err != nil {
		return err
	}
	return d.showPods(ctx)
}

var errNoHolder = errors.New("nobody holds the slot")

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

// kubectl runs a command that a person could run, and prints the command and its warnings. The
// argument "out" gets its output.
func (d *demo) kubectl(ctx context.Context, out io.Writer, stdin []byte, args ...string) error {
	fmt.Printf("  $ kubectl %s\n", strings.Join(args, " "))
	cmd := d.cluster.Kubectl(ctx, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = out, indent{}
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

// live redraws the table of pods in place with each change of a pod or of the Lease,
// until the caller calls the returned function. Without a terminal the method draws
// nothing, because the caller prints the first and the last table.
func (d *demo) live(ctx context.Context) (stop func(), err error) {
	if !terminal(os.Stdout) {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	pods, err := d.client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{LabelSelector: "app=redis"})
	if err != nil {
		cancel()
		return nil, err
	}
	leases, err := d.client.CoordinationV1().Leases(namespace).Watch(ctx,
		metav1.ListOptions{FieldSelector: "metadata.name=" + slot})
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.redraw(ctx, pods, leases)
	}()
	return func() { cancel(); <-done }, nil
}

func (d *demo) redraw(ctx context.Context, pods, leases watch.Interface) {
	drawn := 0
	for {
		text, err := d.podTable(ctx)
		if err != nil {
			return // the demo's next request reports the error
		}
		if drawn > 0 {
			fmt.Printf("\033[%dA\033[J", drawn)
		}
		fmt.Print(text)
		drawn = strings.Count(text, "\n")
		select {
		case <-pods.ResultChan():
		case <-leases.ResultChan():
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			fmt.Printf("\033[%dA\033[J", drawn)
			return
		}
	}
}

func terminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
