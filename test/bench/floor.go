// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/bench/samples"
)

// The nodes reach the API server at this address.
const apiHost, apiPort = "10.213.0.1", "6443"

// floor measures the API server's part of a handover. One client sends the releasing PUT. The
// watch of another client receives the event of that PUT, and this other client sends the
// acquiring PUT. No process stops or starts. Two seconds pass between two rounds, as between two
// handovers. A processor that has idled needs longer for the next request, so both measurements
// need the same pause.
func floor(ctx context.Context, dir, namespace, count string) error {
	rounds, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	client, err := clientGo(dir)
	if err != nil {
		return err
	}
	name := "floor"
	_, err = client.CoordinationV1().Leases(namespace).Create(ctx,
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	var sides [2]*kube.Client
	for i := range sides {
		if sides[i], err = kube.New(kube.Config{
			Namespace: namespace, Host: apiHost, Port: apiPort,
			TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"),
		}); err != nil {
			return err
		}
	}
	lease, err := sides[0].GetLease(ctx, name)
	if err != nil {
		return err
	}
	released := make(chan *kube.Lease, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- sides[1].WatchLease(ctx, name, lease.ResourceVersion, func(e kube.WatchEvent) {
			if e.Lease != nil && e.Lease.Holder == "" {
				released <- e.Lease
			}
		})
	}()
	found := map[string]samples.Times{}
	put := func(side int, l *kube.Lease, holder string) (*kube.Lease, error) {
		l = l.Clone()
		l.Holder, l.RenewTime, l.DurationSeconds = holder, time.Now(), 30
		began := time.Now()
		stored, err := sides[side].UpdateLease(ctx, l)
		found["put"] = append(found["put"], time.Since(began))
		return stored, err
	}
	for range rounds {
		if lease, err = put(0, lease, "a"); err != nil {
			return err
		}
		began := time.Now()
		if _, err := put(0, lease, ""); err != nil {
			return err
		}
		select {
		case lease = <-released:
		case err := <-ended:
			return errors.Join(errors.New("the watch ended"), err)
		}
		if lease, err = put(1, lease, "b"); err != nil {
			return err
		}
		found["release+event+acquire"] = append(found["release+event+acquire"], time.Since(began))
		select {
		case <-time.After(apart):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func clientGo(dir string) (kubernetes.Interface, error) {
	return kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + apiHost + ":" + apiPort, BearerTokenFile: filepath.Join(dir, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")},
	})
}

// elector measures client-go's elector with its usual settings. The measured time begins when the
// leader is told to stop, and ends when the other of two candidates leads. A real program would
// also need time to stop and to start its work.
func elector(ctx context.Context, dir, namespace, count string) error {
	klog.SetLogger(logr.Discard())
	rounds, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	client, err := clientGo(dir)
	if err != nil {
		return err
	}
	started := make(chan string)
	candidate := func(ctx context.Context, identity string) (stop func(), err error) {
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: "elector"}, Client: client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
			},
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					select {
					case started <- identity:
					case <-ctx.Done():
					}
				},
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			cancel()
			return nil, err
		}
		go func() { defer close(done); e.Run(ctx) }()
		return func() { cancel(); <-done }, nil
	}
	stops := map[string]func(){}
	for i := range 2 {
		identity := fmt.Sprint("candidate-", i)
		if stops[identity], err = candidate(ctx, identity); err != nil {
			return err
		}
	}
	found := map[string]samples.Times{}
	leads := <-started
	for range rounds {
		began := time.Now()
		stops[leads]()
		next := <-started
		found["handover"] = append(found["handover"], time.Since(began))
		if stops[leads], err = candidate(ctx, leads); err != nil {
			return err
		}
		leads = next
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func discard(r io.ReadCloser) (int64, error) {
	defer r.Close()
	return io.Copy(io.Discard, r)
}

// idle measures each pod's requests and processor time during a time without handovers.
func (b *bench) idle(ctx context.Context, span time.Duration) error {
	begin, err := b.auditEnd()
	if err != nil {
		return err
	}
	processes, err := b.agents(ctx)
	if err != nil {
		return err
	}
	before, err := spent(processes)
	if err != nil {
		return err
	}
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := spent(processes)
	if err != nil {
		return err
	}
	pods, err := b.pods(ctx)
	if err != nil {
		return err
	}
	lease, err := b.client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil {
		return err
	}
	roles := map[string][]corev1.Pod{}
	for _, pod := range pods {
		role := "standby"
		if isHolder(lease.Spec.HolderIdentity, pod) {
			role = "holder"
		}
		roles[role] = append(roles[role], pod)
	}
	if err := b.requests(begin, span, roles); err != nil {
		return err
	}
	printSpent(span, roles, processes, before, after)
	return nil
}

// requests prints each pod's requests since the position "begin" of the API server's audit log.
func (b *bench) requests(begin int64, span time.Duration, roles map[string][]corev1.Pod) error {
	counts := map[string]map[string]int{}
	err := b.audit(begin, func(event audited) {
		pod, _ := event.pod()
		if counts[pod] == nil {
			counts[pod] = map[string]int{}
		}
		counts[pod][event.Verb]++
	})
	if err != nil {
		return err
	}
	fmt.Printf("\nRequests to the API server in %v without an event, by its audit log; a lease of 30 s.\n", span)
	fmt.Println("\n| | get | update | watch | patch | all |\n|---|---|---|---|---|---|")
	for _, role := range []string{"holder", "standby"} {
		for _, pod := range roles[role] {
			c := counts[pod.Name]
			all := 0
			for _, n := range c {
				all += n
			}
			fmt.Printf("| %s | %d | %d | %d | %d | %d |\n", role, c["get"], c["update"], c["watch"], c["patch"], all)
		}
	}
	return nil
}

func isHolder(identity *string, pod corev1.Pod) bool {
	return identity != nil && *identity == api.Identity(pod.Name, string(pod.UID))
}
