// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command variables prints how many adds to one Variable the API server of a cluster stores, and
// how long the adds take. The command runs the code of one agent for each pod, without the
// programs' calls over loopback. For comparison, the command also measures bare loops of GET and
// PUT that add without an agent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/variable"
	"github.com/metaparticle-io/metaparticle/api"
)

func main() {
	lasts := flag.Duration("for", 10*time.Second, "the time of each row")
	flag.Parse()
	if err := run(context.Background(), *lasts); err != nil {
		fmt.Fprintln(os.Stderr, "variables:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, lasts time.Duration) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	b, err := prepare(ctx, config)
	if err != nil {
		return err
	}
	defer b.close(context.WithoutCancel(ctx))
	fmt.Println("Adds to one Variable. Each pod has the code of one agent, and calls that follow each other.")
	fmt.Println("\n| adds by | pods | calls at once in each pod | per second | p50 ms | p99 ms | unknown outcomes |\n|---|---|---|---|---|---|---|")
	for _, row := range []struct {
		name  string
		calls int
		add   func(b *bench, ctx context.Context, pod int) func(n int) error
	}{
		{"bare GET and PUT", 1, (*bench).bare},
		{"agent", 1, (*bench).plain},
		{"agent, with an idempotency key", 1, (*bench).keyed},
		{"agent, with an idempotency key", 16, (*bench).keyed},
	} {
		for _, pods := range []int{1, 20} {
			err := b.row(ctx, fmt.Sprintf("| %s | %d | %d |", row.name, pods, row.calls), pods, row.calls, lasts,
				func(ctx context.Context, pod int) func(int) error { return row.add(b, ctx, pod) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// bench has a namespace with a service account that may use Variables.
type bench struct {
	objects client.Client
	config  kube.Config
	name    string // the name of the Variable for the present row of the table
	rows    int
	dir     string
}

// prepare makes the namespace, and the credentials of the agents.
func prepare(ctx context.Context, config *rest.Config) (*bench, error) {
	config.QPS = -1
	objects, err := client.New(config, client.Options{})
	if err != nil {
		return nil, err
	}
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "variables")
	if err != nil {
		return nil, err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-variables-"}}
	if err := objects.Create(ctx, namespace); err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{Namespace: namespace.Name, Name: "bench"}
	for _, object := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: meta},
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{api.VariableGroup}, Resources: []string{api.VariableResource}, Verbs: []string{"get", "update"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: meta.Namespace, Name: meta.Name}},
		},
	} {
		if err := objects.Create(ctx, object); err != nil {
			return nil, err
		}
	}
	token, err := set.CoreV1().ServiceAccounts(meta.Namespace).CreateToken(ctx, meta.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil, err
	}
	for name, text := range map[string][]byte{"token": []byte(token.Status.Token), "ca.crt": config.CAData} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	at, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	return &bench{objects: objects, dir: dir, config: kube.Config{
		Namespace: meta.Namespace, Host: at.Hostname(), Port: at.Port(),
		TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"),
	}}, nil
}

func (b *bench) close(ctx context.Context) {
	_ = os.RemoveAll(b.dir)
	_ = b.objects.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.config.Namespace}})
}

// errUnknown means that nobody knows whether an add was stored, because the add's write got no
// answer.
var errUnknown = errors.New("unknown")

// row lets all pods add for the given time, and prints a row. In each pod the given number of calls
// run at the same time. The final sum may differ from the acknowledged adds only by the adds with
// an unknown outcome.
func (b *bench) row(ctx context.Context, begin string, pods, calls int, lasts time.Duration, of func(ctx context.Context, pod int) func(n int) error) error {
	b.rows++
	b.name = fmt.Sprintf("row-%d", b.rows)
	v := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": api.VariableGroup + "/" + api.VariableVersion, "kind": api.VariableKind,
		"metadata": map[string]any{"namespace": b.config.Namespace, "name": b.name}, "spec": map[string]any{},
	}}
	if err := b.objects.Create(ctx, v); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	var times []time.Duration
	var failed error
	unknown, end := 0, time.Now().Add(lasts)
	for pod := range pods {
		add := of(ctx, pod)
		for call := range calls {
			group.Go(func() {
				for n := 0; ctx.Err() == nil && time.Now().Before(end); n++ {
					began := time.Now()
					err := add(call<<32 + n)
					mu.Lock()
					switch {
					case err == nil:
						times = append(times, time.Since(began))
					case errors.Is(err, errUnknown):
						unknown++
					default:
						failed = err
						cancel()
					}
					mu.Unlock()
				}
			})
		}
	}
	group.Wait()
	if failed != nil {
		return failed
	}
	if err := b.objects.Get(context.WithoutCancel(ctx), client.ObjectKeyFromObject(v), v); err != nil {
		return err
	}
	sum, _, err := unstructured.NestedInt64(v.Object, "spec", "integer")
	if err != nil || sum < int64(len(times)) || sum > int64(len(times)+unknown) {
		return fmt.Errorf("the sum is %d after %d acknowledged and %d unknown adds: %w", sum, len(times), unknown, err)
	}
	slices.Sort(times)
	at := func(part float64) float64 {
		return float64(times[int(part*float64(len(times)-1))]) / float64(time.Millisecond)
	}
	fmt.Printf("%s %.0f | %.1f | %.1f | %d |\n", begin, float64(len(times))/lasts.Seconds(), at(.5), at(.99), unknown)
	return nil
}

// bare returns a function that adds 1 by a GET and a PUT. The function repeats both if another pod
// has written in between.
func (b *bench) bare(ctx context.Context, _ int) func(int) error {
	requests, err := kube.New(b.config)
	return func(int) error {
		for err == nil {
			v, failed := requests.GetVariable(ctx, b.name)
			if failed != nil {
				return failed
			}
			sum := int64(1)
			if v.Integer != nil {
				sum += *v.Integer
			}
			v.Integer = &sum
			if _, failed = requests.UpdateVariable(ctx, v); !errors.Is(failed, kube.ErrConflict) {
				return failed
			}
		}
		return err
	}
}

func (b *bench) plain(ctx context.Context, pod int) func(int) error {
	return b.agent(ctx, pod, func(int) string { return "" })
}

func (b *bench) keyed(ctx context.Context, pod int) func(int) error {
	return b.agent(ctx, pod, func(n int) string { return fmt.Sprintf("%d-%d", pod, n) })
}

// agent returns a function that adds 1 to the Variable. The function runs the code of
// agent/variable, as an agent does. The argument "key" is a function that returns the key of the
// n-th add.
func (b *bench) agent(ctx context.Context, pod int, key func(n int) string) func(int) error {
	requests, err := kube.New(b.config)
	if err != nil {
		return func(int) error { return err }
	}
	v := variable.New(variable.Config{
		Name: b.name, Requests: requests, PodUID: fmt.Sprintf("pod-%d", pod), Process: "bench",
		Random: rand.NewPCG(uint64(pod), 1), Log: slog.New(slog.DiscardHandler),
	})
	go v.Run(ctx, nil)
	return func(n int) error {
		switch answer := v.Do(ctx, variable.Action{Add: 1, Key: key(n)}); answer.Refusal {
		case "":
			return nil
		case variable.Unknown:
			return errUnknown
		default:
			return fmt.Errorf("an add is refused: %s", answer.Refusal)
		}
	}
}
