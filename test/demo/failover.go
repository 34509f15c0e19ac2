// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// fault is one way to end the holder.
type fault struct {
	title string
	note  string // explains the times to come; "" for none
	strike,
	mend func(ctx context.Context, d *demo, holder corev1.Pod, redis witness.Process) error
}

var podDeletion = fault{
	title: "The holder's pod is deleted",
	note: fmt.Sprintf("It serves until its endpoint is gone, and %v longer, for nodes that learn late (metaparticle.io/endpoint-delay):",
		api.DefaultEndpointDelay),
	strike: func(ctx context.Context, d *demo, holder corev1.Pod, _ witness.Process) error {
		return d.kubectl(ctx, io.Discard, nil, "-n", namespace, "delete", "pod", holder.Name, "--wait=false")
	},
}

var childKilled = fault{
	title: "redis-server gets SIGKILL",
	strike: func(_ context.Context, _ *demo, holder corev1.Pod, redis witness.Process) error {
		fmt.Printf("  kill -KILL %d, on %s\n", redis.PID, holder.Spec.NodeName)
		return syscall.Kill(redis.PID, syscall.SIGKILL)
	},
}

var nodeCut = fault{
	title: "The holder's node is cut off",
	note:  "Nobody can tell redis there to stop. It must end by itself, before the lease of 30 s has run out:",
	strike: func(ctx context.Context, d *demo, holder corev1.Pod, _ witness.Process) error {
		fmt.Printf("  $ go run ./cluster cut %s      (in test/)\n", holder.Spec.NodeName)
		return d.cluster.Cut(ctx, holder.Spec.NodeName)
	},
	mend: func(ctx context.Context, d *demo, holder corev1.Pod, _ witness.Process) error {
		if err := d.cluster.Heal(ctx, holder.Spec.NodeName); err != nil {
			return err
		}
		return d.quietly(ctx, "wait", "--for=condition=Ready", "node/"+holder.Spec.NodeName, "--timeout=60s")
	},
}

// failOver ends the holder by a fault, and prints a timeline that ends with the new holder's first
// answer. The result has the fault's line of the verdict.
func (d *demo) failOver(ctx context.Context, f fault) (outcome, error) {
	d.title(f.title)
	if err := d.settled(ctx); err != nil {
		return outcome{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	old, err := d.holderPod(bounded)
	if err != nil {
		return outcome{}, err
	}
	scene, err := d.observe(bounded, old)
	if err != nil {
		return outcome{}, err
	}
	defer scene.end()
	redis, err := scene.redisOf(old)
	if err != nil {
		return outcome{}, err
	}
	scene.struck = witness.Now()
	if err := f.strike(bounded, d, old, redis); err != nil {
		return outcome{}, err
	}
	if f.note != "" {
		fmt.Println("  " + f.note)
	}
	stop, err := d.live(bounded)
	if err != nil {
		return outcome{}, err
	}
	err = scene.play(bounded, old)
	stop()
	if err != nil {
		return outcome{}, err
	}
	if err := scene.stamp(); err != nil {
		return outcome{}, err
	}
	fmt.Println("  " + scene.timeline())
	if f.mend != nil {
		if err := f.mend(ctx, d, old, redis); err != nil {
			return outcome{}, err
		}
	}
	return scene.outcome(f.title), d.settled(ctx)
}

// holderPod returns the pod that the Lease names.
func (d *demo) holderPod(ctx context.Context) (corev1.Pod, error) {
	lease, err := d.client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil {
		return corev1.Pod{}, err
	}
	name, uid, _ := strings.Cut(holder(lease), "_")
	pod, err := d.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil || string(pod.UID) != uid {
		return corev1.Pod{}, errors.Join(errNoHolder, err)
	}
	return *pod, nil
}

// scene has all observations of one fail-over.
type scene struct {
	struck time.Duration
	// dead and started are the instants of the old process's end and of the next one's start, as the
	// kernel reported them.
	dead, started time.Duration
	// answered is the instant of the last answer before the next process, and silent is the time from
	// there to the first answer of the next process. Meanwhile clients wait, or get no connection.
	answered, silent time.Duration
	alive            []witness.Process
	kernel           <-chan witness.Event
	leases           watch.Interface
	version          string // the Lease's resourceVersion in the last event of the watch
	writes           *leaseWrites
	answers          <-chan answer
	failed           <-chan error
	end              func()

	lines []line
}

type line struct {
	at     time.Duration
	text   string
	before string // the Lease's resourceVersion before a write of the Lease; "" for any other line
}

// answer has the instants of one client's start and of its answer through the Service.
type answer struct{ began, ended time.Duration }

func (d *demo) observe(ctx context.Context, old corev1.Pod) (*scene, error) {
	ctx, cancel := context.WithCancel(ctx)
	kernel, failed := make(chan witness.Event, 16), make(chan error, 2)
	w, err := witness.Listen(program)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &scene{alive: w.Alive(), kernel: kernel, failed: failed, end: cancel}
	go func() { failed <- w.Run(ctx, func(e witness.Event) { kernel <- e }) }()
	if s.writes, err = followLeaseWrites(d.cluster.AuditLog()); err != nil {
		cancel()
		return nil, err
	}
	s.end = func() { cancel(); s.writes.close() }
	s.leases, err = d.client.CoordinationV1().Leases(namespace).Watch(ctx,
		metav1.ListOptions{FieldSelector: "metadata.name=" + slot})
	if err != nil {
		s.end()
		return nil, err
	}
	if s.answers, err = d.startProbe(ctx, old.Spec.NodeName); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// startProbe starts a stream of clients on another node than the given one, and waits for a first
// answer. The result carries the later answers.
func (d *demo) startProbe(ctx context.Context, except string) (<-chan answer, error) {
	service, err := d.client.CoreV1().Services(namespace).Get(ctx, "redis", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	node := d.cluster.Nodes()[0]
	if node == except {
		node = d.cluster.Nodes()[1]
	}
	reader, writer := io.Pipe()
	go func() {
		writer.CloseWithError(d.cluster.Exec(ctx, node, nil, writer, os.Stderr, self, "probe", service.Spec.ClusterIP+":6379"))
	}()
	answers := make(chan answer)
	go func() {
		defer close(answers)
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			began, ended, _ := strings.Cut(scanner.Text(), " ")
			select {
			case answers <- answer{instant(began), instant(ended)}:
			case <-ctx.Done():
				return
			}
		}
	}()
	// The first answer shows that the clients run.
	select {
	case _, ok := <-answers:
		if !ok {
			return nil, errors.New("the probing clients ended")
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer through the Service: %w", ctx.Err())
	}
	return answers, nil
}

func instant(text string) time.Duration {
	n, _ := strconv.ParseInt(text, 10, 64)
	return time.Duration(n)
}

func (s *scene) redisOf(pod corev1.Pod) (witness.Process, error) {
	for _, p := range s.alive {
		if p.Pod == string(pod.UID) {
			return p, nil
		}
	}
	return witness.Process{}, fmt.Errorf("no %s runs in pod %s", program, pod.Name)
}

// play notes the events until the new holder's redis answers a client.
func (s *scene) play(ctx context.Context, old corev1.Pod) error {
	released := false
	for {
		select {
		case e := <-s.kernel:
			switch {
			case e.Kind == witness.Exit && e.Process.Pod == string(old.UID):
				s.dead = e.At
				s.note(e.At, "old redis dead")
			case e.Kind == witness.Exec && s.dead == 0:
				return errors.New("a second redis-server started while the first was alive")
			case e.Kind == witness.Exec:
				s.started = e.At
				s.note(e.At, "next redis started")
			}
		case e, ok := <-s.leases.ResultChan():
			if !ok {
				return errors.New("the watch of the Lease ended")
			}
			lease, ok := e.Object.(*coordinationv1.Lease)
			if !ok {
				continue
			}
			switch now := holder(lease); {
			case now == "" && !released:
				released = true
				s.noteWrite("slot released")
			case now != "" && !strings.HasSuffix(now, "_"+string(old.UID)) && !s.noted("acquired"):
				s.noteWrite("slot acquired")
			}
			s.version = lease.ResourceVersion
		case a, ok := <-s.answers:
			if !ok {
				return errors.New("the probing clients ended")
			}
			if s.started != 0 && a.ended > s.started {
				s.silent = a.ended - max(s.answered, s.struck)
				s.note(a.ended, "client answered")
				return nil
			}
			s.answered = max(s.answered, a.ended)
		case err := <-s.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("not over in time, after %v: %w", s.lines, ctx.Err())
		}
	}
}
