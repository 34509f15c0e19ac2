// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// leftover is the reason in the refusal of a copy.
const leftover = "Leftover: "

// copies returns the flags of kubectl debug for each way to copy a pod.
func copies() map[string][]string {
	return map[string][]string{
		"a container beside":                   {"--image=" + cluster.Image, "--container=look", "--", "/app"},
		"a container beside, shared processes": {"--image=" + cluster.Image, "--container=look", "--share-processes=true", "--", "/app"},
		"a container beside, own processes":    {"--image=" + cluster.Image, "--container=look", "--share-processes=false", "--", "/app"},
		"another image":                        {"--image=" + cluster.Image, "--container=app", "--share-processes=false"},
		"another image by name":                {"--set-image=app=" + cluster.Image, "--share-processes=false"},
		"another image in every container":     {"--set-image=*=" + cluster.Image, "--share-processes=false"},
		"another command":                      {"--container=app", "--share-processes=false", "--", "/app"},
		"no init containers":                   {"--set-image=app=" + cluster.Image, "--share-processes=false", "--keep-init-containers=false"},
		"its labels":                           {"--set-image=app=" + cluster.Image, "--share-processes=false", "--keep-labels"},
		"its annotations":                      {"--set-image=app=" + cluster.Image, "--share-processes=false", "--keep-annotations"},
		"labels and annotations":               {"--set-image=app=" + cluster.Image, "--share-processes=false", "--keep-labels", "--keep-annotations"},
		"the same node":                        {"--set-image=app=" + cluster.Image, "--same-node", "--share-processes=false"},
	}
}

// docs/reference/compatibility.md: impossible/copies refused Leftover
func TestCopyOfAGatedPodIsRefused(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	a := app.Lasting("copied")
	a.Replicas = 2
	h := holder.Deploy(t, a, "it needs the record")
	for way, flags := range copies() {
		t.Run(way, func(t *testing.T) {
			out, err := kubectl.Run(h.Space, "", append([]string{"debug", h.Victim.Name, "--copy-to=copy"}, flags...)...)
			assert.Error(t, err)
			assert.Regexp(t, leftover+"|MarksForged: ", out)
			_, err = h.Client.CoreV1().Pods(h.Namespace).Get(t.Context(), "copy", metav1.GetOptions{})
			if !assert.True(t, apierrors.IsNotFound(err), "%v", err) {
				kubectl.Must(h.Space, "", "delete", "pod", "copy", "--now")
			}
		})
	}
	t.Run("the ways out", func(t *testing.T) {
		kubectl.Debug(h.Space, h.Victim)
		kubectl.Must(h.Space, "", "debug", h.Victim.Name, "--copy-to=shell", "--profile=general", "--keep-init-containers=false", "--container=app",
			"--", "/app", "-run-for=1ms", "-exit-code=5")
		h.Await(space.StartTimeout, "the copy runs what it is told", func() bool {
			pod := h.Pod("shell")
			return pod != nil && len(pod.Status.ContainerStatuses) == 1 && endedWith(pod.Status.ContainerStatuses[0], 5)
		})
		kubectl.Must(h.Space, "", "delete", "pod", "shell", "--now")
	})
	// The slot of the deleted pod goes to a pod of the workload, because no copy competes
	// for the slot.
	app.DeletePod(h.Space, h.Victim)
	var next *record.Process
	h.Await(space.StartTimeout, "a pod of the workload takes over", func() bool { next = app.After(h.Space, h.App, h.Before); return next != nil })
	app.VacantFor(h.Space, h.App, h.Before, lease.Released, "by a release")
	assert.Equal(t, a.Name, h.Pod(next.Pod).Labels["app"])
}

// endedWith reports whether a container has ended with the exit code, now or before its last
// restart.
func endedWith(status corev1.ContainerStatus, code int32) bool {
	for _, state := range []corev1.ContainerState{status.State, status.LastTerminationState} {
		if state.Terminated != nil && state.Terminated.ExitCode == code {
			return true
		}
	}
	return false
}

// The policies must not loop over the arguments of a pod. So the test compares the time for a pod
// with 50,000 arguments with the time for a pod with one long argument.
func TestPoliciesAreFastForPodsWithManyArguments(t *testing.T) {
	t.Parallel()
	s := space.New(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	fastest := func(args ...string) time.Duration {
		pod := app.Bare(s, "wordy", nil)
		pod.Spec.Containers[0].Args = args
		best := time.Duration(math.MaxInt64)
		for range 3 {
			began := time.Now()
			_, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: webhook.DryRun})
			require.NoError(t, err)
			best = min(best, time.Since(began))
		}
		return best
	}
	const many = 50_000
	one, all := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	// A policy whose CEL expression looped over the arguments took a hundred times as long with
	// many arguments as with one. The bound finds such a policy. A stall of the machine may delay all
	// calls of one measurement, so the test measures again.
	s.Within(space.Soon, func() bool {
		one, all = min(one, fastest(strings.Repeat("a ", many))), min(all, fastest(slices.Repeat([]string{"a"}, many)...))
		return all < 40*one
	})
	assert.Less(t, all, 40*one)
}
