// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// startLimit bounds the time until all pods of a crowd wait. From then on, startLimit also bounds
// the time until all these waits have ended.
const startLimit = 15 * time.Minute

// afterwards is the time after the end of the last wait. Requests of this time also count, because
// the agents then write their statuses and Events.
const afterwards = 5 * time.Second

// crowd is a Job whose pods wait until the work of one key is done.
type crowd struct {
	name        string
	annotations map[string]string
	// role is the first argument of the process that waits in each pod.
	role string
}

// works measures how long each pod still waits after the work of a key has ended, and counts the
// requests of all pods. The pods of the first crowd claim the key, and skip its work. The pods of
// the second crowd claim nothing: they have the key as their condition.
func (b *bench) works(ctx context.Context, pods int) error {
	fmt.Printf("\nWaits for one work, in milliseconds: from the work's exit to the end of each wait, both stamped by the kernel. %d pods wait.\n", pods)
	fmt.Println("\n| annotation | pods | p50 | p99 | max |\n|---|---|---|---|---|")
	claim := map[string]string{api.OnceAnnotation: "schema=1"}
	var lines []string
	for _, c := range []crowd{
		{"once", claim, api.ExecRole},
		{"after", map[string]string{api.AfterAnnotation: api.OnceLease("other") + "=1"}, api.AfterRole},
	} {
		taken, counts, err := b.work(ctx, c, pods)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		taken.Print("`" + c.name + "`")
		lines = append(lines, "| `"+c.name+"` | "+strings.Join(counts, " | ")+" |")
	}
	fmt.Printf("\nRequests of all pods together, from the work's exit until %v after the last wait.\n", afterwards)
	fmt.Printf("\n| annotation | %s |\n|---|%s\n%s\n", strings.Join(verbs, " | "), strings.Repeat("---|", len(verbs)), strings.Join(lines, "\n"))
	return nil
}

// verbs are the columns of the table of requests.
var verbs = []string{"get", "update", "watch", "patch", "create", "all"}

// work starts a crowd, ends the work for which its pods wait, and returns how long each pod waits
// after the end of the work. The second result has the number of requests for each
// element of verbs.
func (b *bench) work(ctx context.Context, c crowd, pods int) (samples.Times, []string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x := &exits{at: map[int]time.Duration{}}
	if err := x.listen(ctx, "app", "agent"); err != nil {
		return nil, nil, err
	}
	jobs := []string{c.name}
	if err := b.job(ctx, c.name, c.annotations, pods); err != nil {
		return nil, nil, err
	}
	if c.role == api.AfterRole {
		// The pods of this crowd claim nothing, so a second Job does the work for which they wait.
		jobs = append(jobs, "work")
		if err := b.job(ctx, "work", map[string]string{api.OnceAnnotation: "other=1"}, 1); err != nil {
			return nil, nil, err
		}
	}
	waiting, worker, err := b.gathered(ctx, c, jobs, pods)
	if err != nil {
		return nil, nil, err
	}
	begin, err := b.auditEnd()
	if err != nil {
		return nil, nil, err
	}
	// The application ends with code 0 after SIGTERM. The shim has not sent the signal, so for the
	// shim the work has succeeded.
	if err := syscall.Kill(worker, syscall.SIGTERM); err != nil {
		return nil, nil, fmt.Errorf("end the work: %w", err)
	}
	var taken samples.Times
	if err := eventually(ctx, "the end of all waits", func() (bool, error) {
		taken, err = x.since(worker, waiting)
		return len(taken) == len(waiting), err
	}); err != nil {
		return nil, nil, err
	}
	select {
	case <-time.After(afterwards):
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	counts, err := b.requestsOf(ctx, begin, jobs)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range jobs {
		if err := b.kubectl(ctx, nil, "-n", namespace, "delete", "job", name, "--cascade=foreground"); err != nil {
			return nil, nil, err
		}
	}
	return taken, counts, nil
}

// job creates a Job whose pods run the application until a signal ends the application.
func (b *bench) job(ctx context.Context, name string, annotations map[string]string, pods int) error {
	n, one := int32(pods), int64(1)
	_, err := b.client.BatchV1().Jobs(namespace).Create(ctx, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: maps.Clone(annotations)},
		Spec: batchv1.JobSpec{Parallelism: &n, Completions: &n, Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &one,
			Containers: []corev1.Container{{Name: "app", Image: lab.RegistryInCluster + "/bench/app:latest", ImagePullPolicy: corev1.PullIfNotPresent}},
		}}},
	}, metav1.CreateOptions{})
	return err
}

// gathered waits until exactly one pod of the Jobs works, and each other pod of the crowd waits.
// The results are the PIDs of the processes that wait, and the PID of the process
// that works.
func (b *bench) gathered(ctx context.Context, c crowd, jobs []string, pods int) (waiting []int, worker int, err error) {
	want := pods
	if c.role == api.ExecRole {
		want-- // one pod of the crowd works
	}
	err = eventually(ctx, fmt.Sprintf("%d pods that wait", want), func() (bool, error) {
		crowd, err := b.podsOf(ctx, jobs)
		if err != nil {
			return false, err
		}
		waiting, worker = nil, 0
		works := map[string]bool{}
		for _, p := range witness.Processes("app") {
			if crowd[p.Pod] != "" {
				works[p.Pod], worker = true, p.PID
			}
		}
		for _, p := range witness.Processes("agent") {
			if crowd[p.Pod] == c.name && !works[p.Pod] && slices.Contains(p.Args, c.role) {
				waiting = append(waiting, p.PID)
			}
		}
		return len(works) == 1 && len(waiting) == want, nil
	})
	return waiting, worker, err
}

// podsOf lists the pods of the given Jobs. The returned map has the UID of each pod, and the name
// of the pod's Job.
func (b *bench) podsOf(ctx context.Context, jobs []string) (map[string]string, error) {
	all := map[string]string{}
	for _, job := range jobs {
		list, err := b.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
		if err != nil {
			return nil, err
		}
		for _, pod := range list.Items {
			all[string(pod.UID)] = job
		}
	}
	return all, nil
}

// requestsOf counts the requests of all pods of the Jobs, and returns a number for each
// element of verbs.
func (b *bench) requestsOf(ctx context.Context, begin int64, jobs []string) ([]string, error) {
	ours, err := b.podsOf(ctx, jobs)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	err = b.audit(begin, func(event audited) {
		if _, uid := event.pod(); ours[uid] != "" {
			counts[event.Verb]++
			counts["all"]++
		}
	})
	var columns []string
	for _, verb := range verbs {
		columns = append(columns, strconv.Itoa(counts[verb]))
	}
	return columns, err
}

// exits are the instants at which processes ended, by their PIDs.
type exits struct {
	mu     sync.Mutex
	at     map[int]time.Duration
	failed error
}

// listen collects the exits of the programs until ctx ends.
func (x *exits) listen(ctx context.Context, programs ...string) error {
	for _, program := range programs {
		w, err := witness.Listen(program)
		if err != nil {
			return err
		}
		go func() {
			err := w.Run(ctx, func(e witness.Event) {
				x.mu.Lock()
				defer x.mu.Unlock()
				if e.Kind == witness.Exit {
					x.at[e.Process.PID] = e.At
				}
			})
			x.mu.Lock()
			defer x.mu.Unlock()
			x.failed = err
		}()
	}
	return nil
}

// since returns, for each of the processes that has ended, the time from the exit of the work to
// the exit of the process. Before the exit of the work, the result is empty.
func (x *exits) since(work int, processes []int) (samples.Times, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	end, ended := x.at[work]
	var taken samples.Times
	for _, pid := range processes {
		if at, ok := x.at[pid]; ok && ended {
			taken = append(taken, at-end)
		}
	}
	return taken, x.failed
}

// The function "eventually" calls the function "done" each second, until a call returns true or an
// error. If no call does so within startLimit, the result is an error.
func eventually(ctx context.Context, what string, done func() (bool, error)) error {
	limit := time.After(startLimit)
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-limit:
			return fmt.Errorf("not within %v: %s", startLimit, what)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
