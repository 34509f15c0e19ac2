// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// variable is the environment variable that contains the name of a container's version.
const variable = "VERSION"

// Version is a version of the application.
type Version struct {
	Name string
	Args []string
	// Edit changes the application's container; nil means no change.
	Edit func(*corev1.Container)
}

// Broken is a version whose process immediately ends with exit code 1.
var Broken = Version{Name: "broken", Args: []string{"-exit-code=1", "-run-for=1ms"}}

// Workload is a workload of some kind that runs the application as a singleton.
type Workload struct {
	*space.Space
	Kind Kind
	App  app.App
}

// Start creates the workload, and waits until all its pods are Ready. The argument "grace"
// is the pods' grace period in seconds; zero means 30.
func Start(s *space.Space, kind Kind, first Version, grace int64) *Workload {
	s.Helper()
	a := app.Lasting(kind.Name)
	a.Replicas, a.Grace = kind.Replicas, grace
	w := &Workload{Space: s, Kind: kind, App: a}
	kubectl.Must(s, kubectl.Manifest(s, kind.object(s, w.of(first))), "create", "-f", "-")
	w.AwaitVersion(first)
	return w
}

// of returns the application with the arguments and the edit of a version.
func (w *Workload) of(v Version) app.App {
	a := w.App
	a.Args = v.Args
	a.Edit = func(t *corev1.PodTemplateSpec) {
		c := &t.Spec.Containers[0]
		c.Env = append(c.Env, corev1.EnvVar{Name: variable, Value: v.Name})
		if v.Edit != nil {
			v.Edit(c)
		}
	}
	return a
}

// object returns the name of the workload for kubectl.
func (w *Workload) object() string { return w.Kind.Resource + "/" + w.App.Name }

// Slot returns the name of the Lease of the workload's slot.
func (w *Workload) Slot() string {
	return api.SingletonLease(api.Workload{Group: "apps", Kind: w.Kind.Lease, Name: w.App.Name}, "")
}

// Apply applies a version to the workload, and does not wait for the rollout.
func (w *Workload) Apply(v Version) {
	w.Helper()
	container, err := json.Marshal(app.Template(w.Space, w.of(v)).Spec.Containers[0])
	require.NoError(w, err)
	patch := `[{"op":"replace","path":"/spec/template/spec/containers/0","value":` + string(container) + `}]`
	kubectl.Must(w.Space, "", "patch", w.object(), "--type=json", "-p", patch)
}

// Finishes waits until the rollout has finished, and returns an error after the timeout.
func (w *Workload) Finishes(timeout time.Duration) error {
	w.Helper()
	out, err := kubectl.Run(w.Space, "", "rollout", "status", w.object(), "--timeout="+timeout.String())
	w.Log(out)
	return err
}

// AwaitVersion waits until all pods of the workload have the version, and are Ready.
func (w *Workload) AwaitVersion(v Version) {
	w.Helper()
	w.Await(space.StartTimeout, "all pods of version "+v.Name+" are Ready", func() bool {
		pods := w.Pods(w.App.Name)
		return len(pods) == int(w.Kind.Replicas) && !slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
			return versionOf(pod) != v.Name || pod.DeletionTimestamp != nil || !status.Ready(pod)
		})
	})
}

// versionOf returns the name of a pod's version.
func versionOf(pod *corev1.Pod) string {
	for _, e := range pod.Spec.Containers[0].Env {
		if e.Name == variable {
			return e.Value
		}
	}
	return ""
}

// Runs returns the name of the version that runs now. If no process runs, or if the process's pod
// is gone, the result is empty.
func (w *Workload) Runs() string {
	now := w.Running(w.App.Name)
	if now == nil {
		return ""
	}
	if pod := w.Pod(now.Pod); pod != nil && string(pod.UID) == now.UID {
		return versionOf(pod)
	}
	return ""
}

// Left returns the number of the version's pods that are not being deleted, and how many of
// them are Ready.
func (w *Workload) Left(v Version) (pods, ready int) {
	for _, pod := range w.Pods(w.App.Name) {
		if versionOf(pod) != v.Name || pod.DeletionTimestamp != nil {
			continue
		}
		pods++
		if status.Ready(pod) {
			ready++
		}
	}
	return pods, ready
}

// Starts returns the application's processes that started after an instant, without
// descendants.
func (w *Workload) Starts(after time.Duration) record.Record {
	return slices.DeleteFunc(w.Record(w.App.Name).Mains(), func(p record.Process) bool { return p.Start <= after })
}

// Failed returns the application's processes that started after an instant, and ended
// with an error.
func (w *Workload) Failed(after time.Duration) record.Record {
	return slices.DeleteFunc(w.Starts(after), func(p record.Process) bool { return !failed(p) })
}

// Stops returns how often the application was stopped after an instant, and the longest time without
// the application. A process that ends with an error was not stopped. A late time stamp proves no
// stop, because a busy machine delays the time stamps of a living process. A recorded end proves a
// stop, and so does the start of a later process.
func (w *Workload) Stops(after time.Duration) (count int, vacant time.Duration) {
	all, now := w.Record(w.App.Name).Mains(), record.Now()
	last := after
	for i, p := range all {
		ended := p.Ended || i+1 < len(all)
		if p.Last > after && ended && !failed(p) {
			count++
		}
		if p.Start > after {
			vacant = max(vacant, p.Start-last)
		}
		if !failed(p) {
			last = max(last, p.Last)
		}
	}
	return count, max(vacant, now-last)
}

// failed reports whether the process has ended with an error, as only broken versions do.
func failed(p record.Process) bool { return p.Ended && p.Code != 0 }
