// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// audited is a line of the API server's audit log about an answered request. Each watch has two
// lines: one line for the beginning of the watch, and one line for the end.
type audited struct {
	Verb, Stage                              string
	RequestReceivedTimestamp, StageTimestamp time.Time
	User                                     struct{ Extra map[string][]string }
	ObjectRef                                struct{ Name, Namespace string }
	ResponseStatus                           struct{ Code int }
}

// pod returns the name and the UID of the pod that sent the request. Both are empty if the sender
// is no pod.
func (a audited) pod() (name, uid string) {
	one := func(key string) string {
		for _, value := range a.User.Extra["authentication.kubernetes.io/pod-"+key] {
			return value
		}
		return ""
	}
	return one("name"), one("uid")
}

// auditEnd returns the present length of the audit log.
func (b *bench) auditEnd() (int64, error) {
	log, err := os.Stat(b.cluster.AuditLog())
	if err != nil {
		return 0, err
	}
	return log.Size(), nil
}

// audit calls each for every request that was answered since the audit log had the given length in
// bytes. Of the two lines about a watch, it skips the line for the end.
func (b *bench) audit(from int64, each func(audited)) error {
	log, err := os.Open(b.cluster.AuditLog())
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := log.Seek(from, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event audited
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue // the last line may be half written
		}
		if began := event.Stage == "ResponseStarted"; began == (event.Verb == "watch") {
			each(event)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	return nil
}

// printSpent prints the processor time of agents and shims between two measurements.
func printSpent(span time.Duration, roles map[string][]corev1.Pod, of map[string]processes, before, after map[int]time.Duration) {
	fmt.Printf("\nProcessor time in milliseconds, user and system, in %v without an event; a lease of 30 s. The median and the maximum of all pods.\n", span)
	fmt.Println("\n| | pods | agent | shim |\n|---|---|---|---|")
	for _, role := range []string{"holder", "standby"} {
		var agents, shims []time.Duration
		for _, pod := range roles[role] {
			p := of[string(pod.UID)]
			agents = append(agents, after[p.agent]-before[p.agent])
			shims = append(shims, after[p.shim]-before[p.shim])
		}
		fmt.Printf("| %s | %d | %s | %s |\n", role, len(agents), median(agents), median(shims))
	}
}

// median returns the text of the median and of the maximum.
func median(all []time.Duration) string {
	slices.Sort(all)
	if len(all) == 0 {
		return "-"
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("%.0f (%.0f)", ms(all[len(all)/2]), ms(all[len(all)-1]))
}

// spent returns the processor time that each process has used since its start, by its PID.
func spent(pods map[string]processes) (map[int]time.Duration, error) {
	found := map[int]time.Duration{}
	for _, p := range pods {
		for _, pid := range []int{p.agent, p.shim} {
			var t unix.Timespec
			// The kernel derives the id of a process's clock from its PID (clock_getcpuclockid(3)).
			if err := unix.ClockGettime(int32(^pid)<<3|2, &t); err != nil {
				return nil, fmt.Errorf("processor time of a process of pod %s: %w", p.pod, err)
			}
			found[pid] = time.Duration(t.Nano())
		}
	}
	return found, nil
}
