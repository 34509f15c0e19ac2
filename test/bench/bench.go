// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

const (
	namespace = "bench"
	slot      = "singleton.deployment.app"
	// fewestStandbys is the least number of standbys. For 1 s after its yield, a pod does not
	// compete for the slot. If that pod were the only standby, the next handover might wait until
	// this time is over.
	fewestStandbys = 2
)

//go:embed app.yaml
var manifest string

// bench is the cluster with a namespace for the measurements.
type bench struct {
	cluster *lab.Cluster
	client  kubernetes.Interface
	dir     string // has the programs and credentials for the nodes
	// standbys is the number of pods that wait for the slot. If the field "named" is true, each
	// yield names one of these pods as the successor.
	standbys int
	named    bool
	// apart is the wait between two handovers.
	apart time.Duration
}

func newBench(ctx context.Context, standbys int, named bool) (*bench, error) {
	cluster, err := lab.Open("")
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("the benchmark needs the project's own cluster (make cluster): %w", err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cluster.SharedDir(), "bench")
	if err != nil {
		return nil, err
	}
	b := &bench{cluster: cluster, client: client, dir: dir, standbys: standbys, named: named, apart: apart}
	if err := b.build(ctx); err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

func (b *bench) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.kubectl(ctx, nil, "delete", "namespace", namespace, "--ignore-not-found"); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.RemoveAll(b.dir)
}

// build makes the application's image.
func (b *bench) build(ctx context.Context) error {
	binary := filepath.Join(b.dir, "app")
	if err := oci.Compile(ctx, oci.TestApp, binary); err != nil {
		return err
	}
	image, err := oci.Static(binary, "app", oci.Config{}, oci.Uncompressed)
	if err != nil {
		return err
	}
	return oci.Push(ctx, b.cluster.Registry()+"/bench/app:latest", image)
}

// deploy starts the application anew with a singleton, and waits until its rollout has ended.
func (b *bench) deploy(ctx context.Context) error {
	text := strings.NewReplacer("IMAGE", lab.RegistryInCluster+"/bench/app:latest", "REPLICAS", strconv.Itoa(1+b.standbys)).Replace(manifest)
	return b.run(ctx, []byte(text), "rollout", "status", "deployment/app", "--timeout=900s")
}

// run applies the manifest in a new namespace, and then waits by the kubectl command.
func (b *bench) run(ctx context.Context, manifest []byte, wait ...string) error {
	for _, step := range []struct {
		stdin []byte
		args  []string
	}{
		{nil, []string{"delete", "namespace", namespace, "--ignore-not-found"}},
		{manifest, []string{"apply", "-f", "-"}},
		{nil, append([]string{"-n", namespace}, wait...)},
	} {
		if err := b.kubectl(ctx, step.stdin, step.args...); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) kubectl(ctx context.Context, stdin []byte, args ...string) error {
	cmd := b.cluster.Kubectl(ctx, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// credentials writes a token of the service account "bench", and the cluster's CA, to the directory
// that programs on the nodes read.
func (b *bench) credentials(ctx context.Context) error {
	hours := int64(7200)
	token, err := b.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "bench",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hours}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	root, err := b.client.CoreV1().ConfigMaps(namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "token"), []byte(token.Status.Token), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, "ca.crt"), []byte(root.Data["ca.crt"]), 0o600)
}

// onNode runs a part of this program on a node, because the agents run on nodes, too. The function
// returns the samples that the part prints.
func (b *bench) onNode(ctx context.Context, node, part string, rounds int) (map[string]samples.Times, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := b.cluster.Exec(ctx, node, nil, &out, os.Stderr, self, part, b.dir, namespace, strconv.Itoa(rounds)); err != nil {
		return nil, fmt.Errorf("%s: %w", part, err)
	}
	var found map[string]samples.Times
	return found, json.Unmarshal(out.Bytes(), &found)
}

func (b *bench) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := b.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=app"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}
