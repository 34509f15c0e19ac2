// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// stalled is the time for which the test observes the broken rollout. The first turn
// comes at once, and a second one once the old version has served for a minute after it. So
// the test sees one turn or two.
const stalled = 100 * time.Second

// mostlyAnswered asserts that the Service has answered more than 1000 connections, and has lost at
// most one connection for every twenty answers. A pod's port refuses connections for a moment while
// the port passes between application and agent, and for longer on a busy machine.
func mostlyAnswered(t *testing.T, seen client.Summary) {
	t.Helper()
	assert.Greater(t, seen.Answered, 1000)
	assert.LessOrEqual(t, len(seen.Failed), seen.Answered/20, "lost %q", seen.Failed)
}

// args changes the application's arguments, and so makes a new revision.
func args(h *holder.Holder, args ...string) {
	h.Helper()
	deployments := h.Client.AppsV1().Deployments(h.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		d, err := deployments.Get(h.Context(), h.App.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		changed := h.App
		changed.Args = args
		d.Spec.Template.Spec.Containers[0].Args = app.Template(h.Space, changed).Spec.Containers[0].Args
		_, err = deployments.Update(h.Context(), d, metav1.UpdateOptions{})
		return err
	})
	require.NoError(h, err)
}

// started returns the application's processes that started after an instant, without the processes
// that another process of the application has started.
func started(h *holder.Holder, after time.Duration) []record.Process {
	return slices.DeleteFunc(slices.Clone(h.Record(h.App.Name)), func(p record.Process) bool {
		return p.Parent != "" || p.Start <= after
	})
}

// readyPods returns the names of the pods that are Ready.
func readyPods(h *holder.Holder) (names []string) {
	for _, pod := range h.Pods(h.App.Name) {
		if pod.DeletionTimestamp == nil && status.Ready(pod) {
			names = append(names, pod.Name)
		}
	}
	slices.Sort(names)
	return names
}

func names(pods []*corev1.Pod) (names []string) {
	for _, pod := range pods {
		names = append(names, pod.Name)
	}
	slices.Sort(names)
	return names
}

// TestRolloutOfABrokenRevisionStalls applies a version that exits immediately, and then a good one.
func TestRolloutOfABrokenRevisionStalls(t *testing.T) {
	t.Parallel()
	const name, replicas = "stalled", 3
	a := app.Lasting(name)
	a.Replicas = replicas
	deployed := holder.Deploy(t, a, "it needs the record")
	h := &deployed
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+name, kubectl.RolloutTimeout)
	olds := names(h.Pods(name))
	require.Len(t, olds, replicas)
	service := app.Service(h.Space, a)

	requests := connect(h, service)
	before := record.Now()
	args(h, "-exit-code=1", "-run-for=1ms")
	out, err := kubectl.Run(h.Space, "", "rollout", "status", "deployment/"+name, "--timeout="+stalled.String())
	require.Error(t, err, out)
	turns := slices.DeleteFunc(started(h, before), func(p record.Process) bool { return slices.Contains(olds, p.Pod) })
	assert.NotEmpty(t, turns, "the broken version has had its turn")
	assert.LessOrEqual(t, len(turns), 2)
	h.Await(space.Soon, "the old version runs", func() bool {
		now := h.Running(name)
		return now != nil && slices.Contains(olds, now.Pod)
	})
	h.Await(space.Soon, "the old pods alone are Ready", func() bool { return slices.Equal(olds, readyPods(h)) })
	seen := requests.Stop()
	t.Logf("broken version: %d turns, %d connections answered, slowest %v, lost %q", len(turns), seen.Answered, seen.Slowest, seen.Failed)
	mostlyAnswered(t, seen)

	requests = connect(h, service)
	mended := record.Now()
	args(h, "-start-delay=200ms")
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+name, kubectl.RolloutTimeout)
	good := slices.DeleteFunc(started(h, mended), func(p record.Process) bool { return slices.Contains(olds, p.Pod) })
	assert.Len(t, good, 1, "the application was stopped once")
	h.Await(space.StartTimeout, "the old pods are gone", func() bool { return len(h.Pods(name)) == replicas })
	assert.Equal(t, good[0].ID, app.AwaitRunning(h.Space, a, space.Soon).ID)
	assert.NotEmpty(t, lease.Hold(h.Space, lease.OfDeployment(name)))
	seen = requests.Stop()
	t.Logf("good version: %d connections answered, slowest %v, lost %q", seen.Answered, seen.Slowest, seen.Failed)
	mostlyAnswered(t, seen)
}

// connect starts a client that opens a connection through the Service every 10 ms.
func connect(h *holder.Holder, service *corev1.Service) *client.Client {
	h.Helper()
	c := client.Start(h.Space, h.Lab, h.Lab.Nodes()[0], client.Anew, service.Spec.ClusterIP)
	h.Await(space.StartTimeout, "the Service answers", c.Answered)
	return c
}
