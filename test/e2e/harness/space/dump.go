// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package space

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// dump describes the namespace of a failed test. If go test keeps artifacts, dump writes the
// description into a file among the artifacts. The test's log then stays short, so the failure is
// easy to find. Otherwise the description goes into the test's log.
func dump(s *Space) {
	// A machine without processor time for the API server looks like a fault of whatever was tested.
	if longest := writes.longest(s.began, time.Now()); longest > mostStall {
		s.Logf("the API server stored nothing for %v during this test, so holders rightly stopped: run it alone, on an idle machine, before you look for another cause", longest)
	}
	text := describe(s)
	if kept := flag.Lookup("test.artifacts"); kept == nil || kept.Value.String() != "true" {
		s.Log(text)
		return
	}
	file := filepath.Join(s.ArtifactDir(), s.Namespace+".txt")
	if assert.NoError(s, os.WriteFile(file, []byte(text), 0o644)) {
		s.Logf("what was there, pods, Leases, records, logs: %s", file)
	}
}

// describe returns the Leases, pods, Events, records and logs of the namespace.
func describe(s *Space) string {
	var out strings.Builder
	fmt.Fprintf(&out, "namespace %s, clock %v\n", s.Namespace, record.Now())
	leases, _ := s.leases.List(everything)
	for _, lease := range leases {
		spec := lease.Spec
		fmt.Fprintf(&out, "lease %s rv=%s holder=%s seconds=%s renewed=%v %v\n", lease.Name, lease.ResourceVersion,
			deref(spec.HolderIdentity), deref(spec.LeaseDurationSeconds), spec.RenewTime, lease.Annotations)
	}
	pods, _ := s.pods.List(everything)
	for _, pod := range pods {
		fmt.Fprintf(&out, "pod %s uid=%s node=%s ip=%s %s deleted=%v labels=%v\n", pod.Name, pod.UID, pod.Spec.NodeName,
			pod.Status.PodIP, pod.Status.Phase, pod.DeletionTimestamp, pod.Labels)
		for _, c := range pod.Status.Conditions {
			fmt.Fprintf(&out, "  %s=%s %s %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
		for _, c := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
			fmt.Fprintf(&out, "  container %s ready=%t restarts=%d %+v last=%+v\n", c.Name, c.Ready, c.RestartCount, c.State, c.LastTerminationState.Terminated)
		}
	}
	dumpEvents(s, &out)
	dumpRecords(s, &out)
	dumpLogs(s, &out, pods)
	return out.String()
}

// deref formats an optional value.
func deref[T any](p *T) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprint(*p)
}

// dumpEvents writes the Events in the order of their time.
func dumpEvents(s *Space, out *strings.Builder) {
	events, _ := s.events.List(everything)
	slices.SortFunc(events, func(a, b *corev1.Event) int {
		return cmp.Compare(eventTime(a).UnixNano(), eventTime(b).UnixNano())
	})
	for _, e := range events {
		fmt.Fprintf(out, "event %s %s/%s %s x%d: %s\n", eventTime(e).Format("15:04:05.000"), e.InvolvedObject.Kind,
			e.InvolvedObject.Name, e.Reason, e.Count, e.Message)
	}
}

// eventTime returns the instant of an Event, from the field that its writer has set.
func eventTime(e *corev1.Event) time.Time {
	if !e.EventTime.IsZero() {
		return e.EventTime.Time
	}
	return e.LastTimestamp.Time
}

// dumpRecords writes all records of the namespace.
func dumpRecords(s *Space, out *strings.Builder) {
	if s.Dir == "" {
		return
	}
	files, _ := filepath.Glob(filepath.Join(s.Dir, "*.jsonl"))
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		r, err := record.Read(s.Dir, name)
		fmt.Fprintf(out, "record %s %v\n", name, err)
		for _, p := range r {
			fmt.Fprintf(out, "  %v start=%v last=%v signalled=%v ended=%t code=%d contended=%t parent=%s gaps=%v\n",
				p, p.Start, p.Last, p.Signalled, p.Ended, p.Code, p.Contended, p.Parent, p.Gaps)
		}
	}
}

// dumpLogs writes the last lines of each container's log.
func dumpLogs(s *Space, out *strings.Builder, pods []*corev1.Pod) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tail := int64(60)
	for _, pod := range pods {
		for _, c := range append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...) {
			logs, err := s.Client.CoreV1().Pods(s.Namespace).
				GetLogs(pod.Name, &corev1.PodLogOptions{Container: c.Name, TailLines: &tail}).DoRaw(ctx)
			if err != nil {
				logs = []byte(err.Error())
			}
			if len(logs) > 0 {
				fmt.Fprintf(out, "logs %s %s:\n%s\n", pod.Name, c.Name, logs)
			}
		}
	}
}
