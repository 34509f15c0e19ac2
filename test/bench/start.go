// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// starter is a kind of pod whose start is measured again and again.
type starter struct {
	name        string
	annotations map[string]string
	// beside are init containers in front of the application's container. These containers run
	// the application's program, and have no gate.
	beside []corev1.Container
	// fresh gives each pod a new name, and so a new slot.
	fresh bool
	taken samples.Times
	// phases are the three phases of a gated pod's start. The first one ends with the agent's
	// exec, the second one with the shim's, and the third one with the application's.
	phases [3]samples.Times
}

var phaseNames = [3]string{
	"part of this time: from the creation to the start of the agent's process",
	"part of this time: from then to the start of the shim's process",
	"part of this time: from then to the start of the application's process",
}

// starts measures the time from a pod's creation to its application's exec, alternately
// with and without the annotation. No other pod competes for the slot.
func (b *bench) starts(ctx context.Context, rounds int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, failed := make(chan witness.Event, 256), make(chan error, 2)
	for _, program := range []string{"app", "agent"} {
		w, err := witness.Listen(program)
		if err != nil {
			return err
		}
		go func() { failed <- w.Run(ctx, func(e witness.Event) { events <- e }) }()
	}
	claim := map[string]string{api.SingletonAnnotation: "true"}
	always := corev1.ContainerRestartPolicyAlways
	image := lab.RegistryInCluster + "/bench/app:latest"
	// This container shows the cost of an ordinary init container. The gated pods have no such
	// container, because a hook of the agent's container installs the shim.
	first := corev1.Container{Name: "first", Image: image, Args: []string{"-run-for=50ms"}}
	sidecar := corev1.Container{Name: "sidecar", Image: image, RestartPolicy: &always}
	starters := []*starter{
		{name: "plain"},
		{name: "sidecar", beside: []corev1.Container{sidecar}},
		{name: "both", beside: []corev1.Container{first, sidecar}},
		{name: "gated", annotations: claim},
		{name: "new", annotations: claim, fresh: true},
	}
	// The first pod of each kind pulls the images, and does not count.
	for round := range rounds + 1 {
		for _, s := range starters {
			if err := b.start(ctx, s, round, events, failed); err != nil {
				return fmt.Errorf("round %d of %s: %w", round, s.name, err)
			}
		}
	}
	plain, sole, both, gated, fresh := starters[0], starters[1], starters[2], starters[3], starters[4]
	fmt.Println("\nStart of a pod, in milliseconds: from its creation to its application's exec.")
	fmt.Println("\n| | rounds | p50 | p99 | max |\n|---|---|---|---|---|")
	plain.taken.Print("pod without the annotation")
	sole.taken.Print("pod without the annotation, with a native sidecar that does nothing")
	both.taken.Print("pod without the annotation, with such a sidecar and an init container of 50 ms")
	gated.taken.Print("annotated pod, slot free")
	for i, phase := range gated.phases {
		phase.Print(phaseNames[i])
	}
	fresh.taken.Print("annotated pod, new slot that no pod has ever held")
	added := func(s, to *starter) time.Duration {
		return (s.taken.Quantile(.5) - to.taken.Quantile(.5)).Round(time.Millisecond)
	}
	fmt.Printf("\nAdded at p50: %v, of which %v by us; %v for a new slot.\n", added(gated, plain), added(gated, sole), added(fresh, plain))
	return nil
}

// start creates one pod, waits for its application, and deletes the pod.
func (b *bench) start(ctx context.Context, s *starter, round int, events <-chan witness.Event, failed <-chan error) error {
	name := s.name
	if s.fresh {
		name = fmt.Sprintf("%s-%d", s.name, round)
	}
	one := int64(1)
	pods := b.client.CoreV1().Pods(namespace)
	created := witness.Now()
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: maps.Clone(s.annotations)},
		Spec: corev1.PodSpec{
			// Only this node has the images.
			NodeSelector: map[string]string{corev1.LabelHostname: b.cluster.Nodes()[0]}, TerminationGracePeriodSeconds: &one,
			InitContainers: s.beside,
			Containers:     []corev1.Container{{Name: "app", Image: lab.RegistryInCluster + "/bench/app:latest", ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	execs, err := b.execs(ctx, pod.UID, len(s.beside)+1, events, failed)
	if err != nil {
		return err
	}
	if n := len(execs); round > 0 {
		s.taken = append(s.taken, execs[n-1]-created)
		if s.annotations != nil {
			// The agent's exec comes first, and the execs of shim and application come
			// last. Between these execs, the exec of the agent's postStart hook may be
			// missing, because the hook can end before the witness identifies the hook.
			last := created
			for i, at := range []time.Duration{execs[0], execs[n-2], execs[n-1]} {
				s.phases[i] = append(s.phases[i], at-last)
				last = at
			}
		}
	}
	return b.gone(ctx, name)
}

// execs waits until the pod has started the application's program the given number of
// times, and returns the instant of each exec in the pod.
func (b *bench) execs(ctx context.Context, uid types.UID, programs int, events <-chan witness.Event, failed <-chan error) ([]time.Duration, error) {
	var execs []time.Duration
	limit := time.After(time.Minute)
	for {
		select {
		case e := <-events:
			if e.Kind != witness.Exec || e.Process.Pod != string(uid) {
				continue
			}
			execs = append(execs, e.At)
			if e.Process.Program == "app" {
				programs--
			}
			if programs == 0 {
				return execs, nil
			}
		case err := <-failed:
			return nil, err
		case <-limit:
			return nil, errors.New("no application within a minute")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// gone deletes a pod, and waits until none of its processes can disturb the next pod.
func (b *bench) gone(ctx context.Context, name string) error {
	pods := b.client.CoreV1().Pods(namespace)
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	for {
		_, err := pods.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-time.After(settle):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handed is one handover. Both instants are readings of the kernel's CLOCK_MONOTONIC.
type handed struct {
	exit, exec time.Duration
	// old and next are the UIDs of the holder before and after the handover.
	old, next string
}

// write is a stored write of a slot's Lease. Both instants are from the API server's audit log.
type write struct {
	// pod is the UID of the pod that wrote.
	pod              string
	received, stored time.Duration
}

// steps describes each step between the old application's exit and the new one's exec.
var steps = []string{
	"from the exit to the receipt of the releasing PUT: the shim reaps and reports, the agent writes",
	"the API server stores the releasing PUT",
	"from then to the receipt of the acquiring PUT: the standby gets the watch event, and writes",
	"the API server stores the acquiring PUT",
	"from then to the exec: the answer, the check whether the pod is deleted unless that was checked before, the grant, fork and exec",
}

// printSteps prints the duration of each step of the handovers.
func printSteps(rounds []handed, writes []write) error {
	times := make([]samples.Times, len(steps))
	for _, r := range rounds {
		at := func(pod string, from time.Duration) *write {
			i := slices.IndexFunc(writes, func(w write) bool {
				return w.pod == pod && w.received >= from && w.stored <= r.exec
			})
			if i < 0 {
				return nil
			}
			return &writes[i]
		}
		release := at(r.old, r.exit)
		if release == nil {
			continue
		}
		acquire := at(r.next, release.received)
		if acquire == nil {
			continue
		}
		for i, d := range []time.Duration{
			release.received - r.exit, release.stored - release.received, acquire.received - release.stored,
			acquire.stored - acquire.received, r.exec - acquire.stored,
		} {
			times[i] = append(times[i], d)
		}
	}
	if len(times[0]) < len(rounds)/2 {
		return fmt.Errorf("the audit log has the writes of %d handovers of %d", len(times[0]), len(rounds))
	}
	fmt.Println("\nThe steps of these handovers, in milliseconds, by the kernel and by the API server's audit log. A write is")
	fmt.Println("stored a moment before the log says so, so its event may come earlier.")
	fmt.Println("\n| step | rounds | p50 | p99 | max |\n|---|---|---|---|---|")
	for i, step := range steps {
		times[i].Print(step)
	}
	return nil
}

// writes returns the stored writes of all Leases since the audit log had the given length.
func (b *bench) writes(from int64) ([]write, error) {
	zero, err := monotonicZero()
	if err != nil {
		return nil, err
	}
	var writes []write
	err = b.audit(from, func(event audited) {
		if event.Verb != "update" || event.ResponseStatus.Code != http.StatusOK {
			return
		}
		_, uid := event.pod()
		writes = append(writes, write{pod: uid, received: event.RequestReceivedTimestamp.Sub(zero), stored: event.StageTimestamp.Sub(zero)})
	})
	return writes, err
}

// monotonicZero returns the time of the wall clock at which CLOCK_MONOTONIC was zero.
func monotonicZero() (time.Time, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return time.Now().Add(-time.Duration(now.Nano())), err
}
