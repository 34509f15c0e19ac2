// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// note adds a line about the start or the end of a process, or about a client's answer. The
// argument "at" is the instant of that event.
func (s *scene) note(at time.Duration, text string) {
	s.lines = append(s.lines, line{at: at, text: text})
}

// noteWrite adds a write of the Lease. The method "stamp" adds the instant later, by the
// API server's clock, because the watch may report the write late.
func (s *scene) noteWrite(text string) {
	s.lines = append(s.lines, line{text: text, before: s.version})
}

// stamp gives each write the instant at which the write reached the API server.
func (s *scene) stamp() error {
	for i, l := range s.lines {
		if l.before == "" {
			continue
		}
		at, err := s.writes.received(l.before)
		if err != nil {
			return fmt.Errorf("time of %q: %w", l.text, err)
		}
		s.lines[i].at = at
	}
	return nil
}

func (s *scene) noted(word string) bool {
	return slices.ContainsFunc(s.lines, func(l line) bool { return strings.Contains(l.text, word) })
}

// ordered returns the lines in the order of their instants. Events of the kernel and of
// the API server may arrive in another order.
func (s *scene) ordered() []line {
	return slices.SortedStableFunc(slices.Values(s.lines), func(a, b line) int { return cmp.Compare(a.at, b.at) })
}

// timeline returns one line with each event and its time since the fault.
func (s *scene) timeline() string {
	var events []string
	for _, l := range s.ordered() {
		events = append(events, fmt.Sprintf("%.0f ms %s", milliseconds(l.at-s.struck), l.text))
	}
	return strings.Join(events, ", ")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// outcome is the line of the verdict about one fault. All instants count from the fault.
type outcome struct {
	title                 string
	dead, started, silent time.Duration
}

func (s *scene) outcome(title string) outcome {
	return outcome{title: title, dead: s.dead - s.struck, started: s.started - s.struck, silent: s.silent}
}

// verdict returns the table of all faults, and what its columns mean.
func verdict(all []outcome) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "WHAT HAPPENED\tOLD PROCESS DEAD\tNEXT STARTED\tCLIENTS WAITED\tOVERLAP\t")
	for _, o := range all {
		fmt.Fprintf(w, "%s\t%.1f ms\t%.1f ms\t%.0f ms\t%.0f ms\t\n",
			o.title, milliseconds(o.dead), milliseconds(o.started), milliseconds(o.silent), milliseconds(max(0, o.dead-o.started)))
	}
	w.Flush()
	text.WriteString("  Clients connect every 10 ms, and wait. Overlap: how long both processes lived, by the kernel's record.\n")
	return text.String()
}

// showPods prints a table of the pods, with the holder's token and the time of its
// acquiring write.
func (d *demo) showPods(ctx context.Context) error {
	text, err := d.podTable(ctx)
	fmt.Print(text)
	return err
}

func (d *demo) podTable(ctx context.Context) (string, error) {
	pods, err := d.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=redis"})
	if err != nil {
		return "", err
	}
	lease, err := d.client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil && !errors.IsNotFound(err) {
		return "", err
	}
	return table(pods.Items, lease), nil
}

// settled waits until all three pods are Ready and none is being deleted.
func (d *demo) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	pods := d.client.CoreV1().Pods(namespace)
	for {
		list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "app=redis"})
		if err != nil {
			return err
		}
		good := 0
		for _, pod := range list.Items {
			if pod.DeletionTimestamp == nil && ready(pod) == "True" {
				good++
			}
		}
		if good == 3 && len(list.Items) == 3 {
			return nil
		}
		changed, err := pods.Watch(ctx, metav1.ListOptions{LabelSelector: "app=redis", ResourceVersion: list.ResourceVersion})
		if err != nil {
			return fmt.Errorf("wait for three Ready pods: %w", err)
		}
		select {
		case <-changed.ResultChan():
			changed.Stop()
		case <-ctx.Done():
			changed.Stop()
			return fmt.Errorf("wait for three Ready pods: %w", ctx.Err())
		}
	}
}

func table(pods []corev1.Pod, lease *coordinationv1.Lease) string {
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "    POD\tNODE\tREADY\tROLE\tTOKEN\tSINCE")
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodRunning && pod.Status.Phase != corev1.PodPending {
			continue
		}
		role, token, since := "runs redis", "", ""
		if _, gated := pod.Labels[api.GatedLabel]; gated {
			role = "standby"
			if holds(lease, pod) {
				role, token, since = "HOLDER", lease.Annotations[api.TokenAnnotation], acquired(lease)
			}
		}
		if pod.DeletionTimestamp != nil {
			role += ", ends"
		}
		fmt.Fprintf(w, "    %s\t%s\t%v\t%s\t%s\t%s\n", pod.Name, pod.Spec.NodeName, ready(pod), role, token, since)
	}
	w.Flush()
	return text.String()
}

func holds(lease *coordinationv1.Lease, pod corev1.Pod) bool {
	return holder(lease) == api.Identity(pod.Name, string(pod.UID))
}

func holder(lease *coordinationv1.Lease) string {
	if lease == nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func acquired(lease *coordinationv1.Lease) string {
	if lease.Spec.AcquireTime == nil {
		return ""
	}
	return lease.Spec.AcquireTime.Local().Format(time.TimeOnly)
}

func ready(pod corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return string(c.Status)
		}
	}
	return "Unknown"
}

const (
	// every is the interval between the starts of two clients.
	every = 10 * time.Millisecond
	// patience is the longest time that a client waits for its connection, and then for the
	// answer. During a handover a standby lets new connections wait, so a client must not give
	// up early.
	patience = 2 * time.Second
)

// probe runs a stream of redis clients on a node of the cluster. Each client connects
// through the Service's address, sends PING, and prints the instants of its start and of
// the answer. A client without an answer prints nothing.
func probe(ctx context.Context, address string) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		clients.Go(func() {
			began := witness.Now()
			if ping(ctx, address) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(out, int64(began), int64(witness.Now()))
			out.Flush()
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func ping(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && line != "+PONG\r\n" {
		err = fmt.Errorf("answered %q", line)
	}
	return err
}

// leaseWrites reads the writes of the slot's Lease from the API server's audit log. The
// log has the instant at which each write reached the API server.
type leaseWrites struct {
	log *os.File
}

// followLeaseWrites opens the audit log, and skips the earlier writes, because they do not matter.
func followLeaseWrites(file string) (*leaseWrites, error) {
	log, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		log.Close()
		return nil, err
	}
	return &leaseWrites{log: log}, nil
}

func (w *leaseWrites) close() { w.log.Close() }

// auditEvent is the part of an audit event (audit.k8s.io/v1) that is read here.
type auditEvent struct {
	Verb      string
	ObjectRef struct{ Resource, Namespace, Name, ResourceVersion string }
	Response  struct{ Code int } `json:"responseStatus"`
	Received  time.Time          `json:"requestReceivedTimestamp"`
}

// replaces reports whether the event records a successful write that replaced the given version of
// the slot's Lease.
func (e auditEvent) replaces(version string) bool {
	return e.Verb == "update" && e.Response.Code == http.StatusOK && e.ObjectRef.Resource == "leases" &&
		e.ObjectRef.Namespace == namespace && e.ObjectRef.Name == slot && e.ObjectRef.ResourceVersion == version
}

// received returns the instant, on the kernel's clock, at which the API server got the write that
// replaced the given version of the Lease.
func (w *leaseWrites) received(version string) (time.Duration, error) {
	start, err := w.log.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	defer func() { _, _ = w.log.Seek(start, io.SeekStart) }()
	lines := bufio.NewScanner(w.log)
	lines.Buffer(nil, 1<<20) // an event may carry long annotations
	for lines.Scan() {
		var event auditEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			continue // the last line may be half written
		}
		if event.replaces(version) {
			return witness.Now() - time.Since(event.Received), nil
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("the API server's audit log has no write of Lease %s after version %s", slot, version)
}
