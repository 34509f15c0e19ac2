// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/image/public"
)

// plays has for each example a function, which shows the example after its files are applied.
var plays = map[string]func(*example, context.Context) error{
	"counter": (*example).counter, "election": (*example).election, "leader": (*example).leader, "licence": (*example).licence, "load": (*example).load, "migration": (*example).migration,
	"nightly": (*example).nightly, "warmup": (*example).warmup, "wordcount": (*example).wordcount,
}

// exampleTimeout bounds a wait for pods. On a busy machine a pod starts within a minute.
const exampleTimeout = 3 * time.Minute

// example is one folder of the examples, applied in a namespace of its own.
type example struct {
	*demo
	namespace string
}

// runExample applies a folder of the examples, as a person does. Then runExample calls the
// example's function in the map [plays].
func runExample(ctx context.Context, name string) error {
	play, known := plays[name]
	if !known {
		return fmt.Errorf("no example %q: choose EXAMPLE=%s", name, strings.Join(slices.Sorted(maps.Keys(plays)), ", EXAMPLE="))
	}
	d, err := newDemo()
	if err != nil {
		return err
	}
	// The printed commands contain paths relative to the project's root, where a person runs kubectl.
	if err := os.Chdir(".."); err != nil {
		return err
	}
	e := &example{d, "example-" + name}
	d.title("The files of examples/" + name + ", in a namespace that has opted in")
	if err := public.Push(ctx, d.cluster.Registry()); err != nil {
		return err
	}
	if err := d.clear(ctx, e.namespace); err != nil {
		return err
	}
	err = e.steps(ctx,
		[]string{"create", "namespace", e.namespace},
		[]string{"label", "namespace", e.namespace, api.InjectionLabel + "=" + api.InjectionEnabled},
		[]string{"-n", e.namespace, "apply", "-f", "examples/" + name})
	if err != nil {
		return err
	}
	if err := play(e, ctx); err != nil {
		return err
	}
	d.title("The cluster stays up. Try next")
	fmt.Printf("  export KUBECONFIG=%s\n  alias kubectl='%s'\n", d.cluster.Kubeconfig(), d.cluster.Dir()+"/bin/kubectl")
	fmt.Printf("  kubectl -n %[1]s get pods -L %[2]s\n  kubectl delete namespace %[1]s\n", e.namespace, api.RoleLabel)
	fmt.Println("  make cluster-down   # nothing is left behind")
	return nil
}

// steps runs kubectl commands that a person could run, up to the first that fails.
func (d *demo) steps(ctx context.Context, all ...[]string) error {
	for _, step := range all {
		if err := d.kubectl(ctx, indent{}, nil, step...); err != nil {
			return err
		}
	}
	return nil
}

// in returns the words of a kubectl command in the namespace of the example.
func (e *example) in(command string) []string {
	return append([]string{"-n", e.namespace}, strings.Fields(command)...)
}

// pods is the command that shows the pods with their roles.
const pods = "get pods -L " + api.RoleLabel

// untilReady returns the command that waits until a pod is Ready. A holder is Ready once its
// application runs.
func untilReady(pod string) string { return "wait --for=condition=Ready pod/" + pod + " --timeout=60s" }

// nightly shows that the pod of one Job skips while the pod of another Job works. If the pod that
// works is deleted, its Job makes a new pod.
func (e *example) nightly(ctx context.Context) error {
	e.title("One run, and another run before the first one has ended")
	if err := e.steps(ctx, e.in("create job --from=cronjob/nightly first")); err != nil {
		return err
	}
	holders, err := e.holders(ctx, 1, "")
	if err != nil {
		return err
	}
	err = e.steps(ctx,
		e.in("create job --from=cronjob/nightly second"),
		e.in("wait --for=condition=complete job/second --timeout=120s"),
		e.in("logs job/second -c backup"))
	if err != nil {
		return err
	}
	e.title("The pod of the first run is deleted in the middle")
	if err := e.steps(ctx, e.in("logs "+holders[0]+" -c backup --tail=2"), e.in("delete pod "+holders[0])); err != nil {
		return err
	}
	if holders, err = e.holders(ctx, 1, holders[0]); err != nil {
		return err
	}
	return e.steps(ctx, e.in(untilReady(holders[0])), e.in(pods), e.in("logs "+holders[0]+" -c backup"))
}

// licence shows that three tasks of six run at once, and that all six tasks finish.
func (e *example) licence(ctx context.Context) error {
	e.title("Three tasks run, and three wait")
	holders, err := e.holders(ctx, 3, "")
	if err != nil {
		return err
	}
	if err := e.steps(ctx, e.in(pods)); err != nil {
		return err
	}
	e.title("A pod that has a permit is deleted in the middle")
	return e.steps(ctx,
		e.in("delete pod "+holders[0]),
		e.in("wait --for=condition=complete job/solver --timeout=170s"),
		e.in(pods))
}

// warmup shows that the replicas start one at a time, in a rollout, too.
func (e *example) warmup(ctx context.Context) error {
	e.title("Four replicas start, one at a time")
	if err := e.steps(ctx, e.in("rollout status deployment/cache --timeout=170s"), e.in("logs -l app=cache -c cache --prefix")); err != nil {
		return err
	}
	e.title("A rollout replaces all of them, and each new replica starts alone")
	return e.steps(ctx,
		e.in("rollout restart deployment/cache"),
		e.in("rollout status deployment/cache --timeout=170s"),
		e.in("logs -l app=cache -c cache --prefix"))
}

// leader shows that each replica serves, and that only one replica works. If the replica that works
// is deleted, another replica works.
func (e *example) leader(ctx context.Context) error {
	e.title("Three replicas serve, and one works")
	if err := e.steps(ctx, e.in("rollout status deployment/shop --timeout=170s")); err != nil {
		return err
	}
	holders, err := e.holders(ctx, 1, "")
	if err != nil {
		return err
	}
	if err := e.steps(ctx, e.in(pods), e.in("logs "+holders[0]+" -c worker --tail=2")); err != nil {
		return err
	}
	e.title("The replica that works is deleted")
	if err := e.steps(ctx, e.in("delete pod "+holders[0])); err != nil {
		return err
	}
	if holders, err = e.holders(ctx, 1, holders[0]); err != nil {
		return err
	}
	return e.steps(ctx, e.in(untilReady(holders[0])), e.in(pods), e.in("logs "+holders[0]+" -c worker"))
}

// election shows that three programs run, and that after the leader's deletion another program
// leads.
func (e *example) election(ctx context.Context) error {
	e.title("Three replicas run, and one leads")
	if err := e.steps(ctx, e.in("rollout status deployment/election --timeout=170s")); err != nil {
		return err
	}
	lease := e.in("get lease " + api.ElectionLease("main"))
	leader, err := e.elected(ctx, "")
	if err != nil {
		return err
	}
	if err := e.steps(ctx, e.in("get pods"), lease, e.in("logs "+leader+" -c program --tail=3")); err != nil {
		return err
	}
	e.title("The leader is deleted")
	if err := e.steps(ctx, e.in("delete pod "+leader)); err != nil {
		return err
	}
	if leader, err = e.elected(ctx, leader); err != nil {
		return err
	}
	return e.steps(ctx, e.in("get pods"), lease, e.in("logs "+leader+" -c program"))
}

// counter shows the sum while the pods count, and after their end.
func (e *example) counter(ctx context.Context) error {
	e.title("Five pods count together")
	sum := e.in("get variable hits")
	if err := e.steps(ctx, e.in("wait --for=jsonpath={.spec.integer} variable/hits --timeout=170s"), e.in("get pods"), sum); err != nil {
		return err
	}
	e.title("A thousand adds are in the sum")
	return e.steps(ctx, e.in("wait --for=condition=complete job/counter --timeout=170s"), sum)
}

// load shows that the sums are exact although a pod of the load test is deleted, and that the rollout
// of a singleton fails no request.
func (e *example) load(ctx context.Context) error {
	e.title("Three replicas of a singleton serve, and four pods ask them together")
	sums := e.in("get variables sent failed slow")
	// The rollout is to end within the run, so the run is longer.
	err := e.steps(ctx, e.in("rollout status deployment/shop --timeout=170s"),
		e.in("set env cronjob/load SECONDS=120 P99_MS=2000"), e.in("create job --from=cronjob/load first"))
	if err != nil {
		return err
	}
	err = e.poll(ctx, e.in("get variable sent -o jsonpath={.spec.integer}"), func(sent string) bool { return sent != "" && sent != "0" })
	if err != nil {
		return err
	}
	e.title("One of the four is deleted in the middle, and the singleton is rolled out under the load")
	return e.steps(ctx, sums,
		e.in("delete pod -l app=load,batch.kubernetes.io/job-completion-index=2"),
		e.in("rollout restart deployment/shop"),
		e.in("rollout status deployment/shop --timeout=170s"), sums,
		e.in("wait --for=condition=complete job/first --timeout=170s"), sums,
		e.in("logs -l app=load,batch.kubernetes.io/job-completion-index=0 -c load"))
}

// wordcount shows that the shard of a deleted pod runs again, and that the sum is complete.
func (e *example) wordcount(ctx context.Context) error {
	e.title("Four pods map one shard each, and the reduce waits")
	holders, err := e.holders(ctx, 4, "")
	if err != nil {
		return err
	}
	if err := e.steps(ctx, e.in("get pods -L "+api.ShardLabel+" -l app=wordcount")); err != nil {
		return err
	}
	e.title("A pod is deleted in the middle, and another pod takes its shard")
	return e.steps(ctx,
		e.in("delete pod "+holders[0]),
		e.in("wait --for=condition=complete job/map --timeout=170s"),
		e.in("wait --for=condition=complete job/reduce --timeout=170s"),
		e.in("logs job/reduce -c reduce"))
}

// migration shows that one pod of eight migrates, and that after its deletion another pod migrates.
func (e *example) migration(ctx context.Context) error {
	e.title("Eight pods start, and one of them migrates")
	table := func(name string) []string {
		return append(e.in("exec deployment/database -- psql --user=postgres"), "--command=TABLE "+name)
	}
	if err := e.steps(ctx, e.in("rollout status deployment/database --timeout=170s")); err != nil {
		return err
	}
	holders, err := e.holders(ctx, 1, "")
	if err != nil {
		return err
	}
	// The pod that migrates adds its row to the table "attempts" before the migration.
	if err := e.until(ctx, "1", append(e.in("exec deployment/database -- psql --user=postgres -qtAc"), "SELECT count(*) FROM attempts")); err != nil {
		return err
	}
	e.title("The pod that migrates is deleted in the middle")
	return e.steps(ctx,
		e.in(pods+" -l app=shop"),
		e.in("delete pod "+holders[0]),
		e.in("rollout status deployment/shop --timeout=170s"),
		table("attempts"), table("migrations"))
}

// holders waits until the given number of pods hold a slot, and returns their names. The argument
// "except" is the name of a pod that does not count.
func (e *example) holders(ctx context.Context, count int, except string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, exampleTimeout)
	defer cancel()
	client := e.client.CoreV1().Pods(e.namespace)
	watch, err := client.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	defer watch.Stop()
	for {
		list, err := client.List(ctx, metav1.ListOptions{LabelSelector: api.RoleLabel + "=" + api.RoleHolder})
		if err != nil {
			return nil, err
		}
		names := []string{}
		for _, pod := range list.Items {
			if pod.Name != except && pod.DeletionTimestamp == nil {
				names = append(names, pod.Name)
			}
		}
		if len(names) >= count {
			return names, nil
		}
		select {
		case _, open := <-watch.ResultChan():
			if !open {
				return nil, fmt.Errorf("%d pods of %d hold a slot, and the watch of the pods has ended", len(names), count)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%d pods of %d hold a slot: %w", len(names), count, ctx.Err())
		}
	}
}

// elected waits until a pod of the election works as the leader, and returns its name. The argument
// "except" is the name of a pod that does not count.
func (e *example) elected(ctx context.Context, except string) (leader string, err error) {
	holder := e.in("get lease " + api.ElectionLease("main") + " -o jsonpath={.spec.holderIdentity}")
	err = e.poll(ctx, holder, func(identity string) bool {
		leader = api.PodOf(identity)
		return leader != "" && leader != except
	})
	if err != nil {
		return "", err
	}
	return leader, e.poll(ctx, e.in("logs "+leader+" -c program"), func(log string) bool { return strings.Contains(log, "works with token") })
}

// until repeats a query until its output is the wanted text.
func (e *example) until(ctx context.Context, want string, query []string) error {
	return e.poll(ctx, query, func(out string) bool { return out == want })
}

// poll repeats a query each second, until the function "accepts" returns true for the output of the
// query. Neither a new row of PostgreSQL nor a new line of a log is an event for which poll could
// wait.
func (e *example) poll(ctx context.Context, query []string, accepts func(out string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, exampleTimeout)
	defer cancel()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		out, err := e.cluster.Kubectl(ctx, query...).Output()
		if err == nil && accepts(strings.TrimSpace(string(out))) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("kubectl %s: %w", strings.Join(query, " "), ctx.Err())
		}
	}
}
