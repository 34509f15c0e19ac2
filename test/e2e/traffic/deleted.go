// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// The constant named late is the time for which the test still connects to a deleted standby, as a
// slow node does. The constant named lateDelay is the endpoint delay of that standby. With the
// default delay, the standby's agent would end within two or three seconds. The longer delay begins
// with the kubelet's signal, and ends after the test's last connection. So the agent must accept all
// connections of the test.
const late, lateDelay = 7 * time.Second, 8 * time.Second

// A node sends connections to a deleted standby until the node knows of the deletion. The
// standby's agent accepts them for that time, so no client notices the deletion.
func TestServiceAnswersWhileAStandbyIsDeleted(t *testing.T) {
	t.Parallel()
	a := app.Lasting("lingers")
	a.Annotations[api.EndpointDelayAnnotation] = lateDelay.String()
	h := holder.Deploy(t, a, "it needs a client on a node")
	service := app.Service(h.Space, h.App)
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/lingers", kubectl.RolloutTimeout)
	endpoints := func() bool { return len(app.Endpoints(h.Space, service)) == 3 }
	h.Await(space.StartTimeout, "all pods are behind the Service", endpoints)

	ask := func() *client.Client {
		requests := client.Start(h.Space, h.Lab, h.Before.Node, client.Anew, service.Spec.ClusterIP)
		h.Await(space.StartTimeout, "the Service answers", requests.Answered)
		return requests
	}
	ask().Stop() // these connections do not count: the node may learn of the Service late
	requests := ask()
	deleted := 0
	for _, pod := range h.Pods(h.App.Name) {
		if pod.Name == h.Victim.Name {
			continue
		}
		slow := client.Start(h.Space, h.Lab, h.Before.Node, client.Anew, net.JoinHostPort(pod.Status.PodIP, "8080"))
		h.Await(space.StartTimeout, "the standby answers", slow.Answered)
		app.DeletePod(h.Space, pod)
		h.Never(late, "the end of a standby that slow nodes know", func() bool { return h.Pod(pod.Name) == nil })
		assert.Empty(t, slow.Stop().Failed, "a node that learns of the deletion late")
		h.Await(space.StartTimeout, "the standby is gone", func() bool { return h.Pod(pod.Name) == nil })
		h.Await(space.StartTimeout, "another pod is in its place", endpoints)
		deleted++
	}
	require.Equal(t, 2, deleted)
	sum := requests.Stop()
	t.Logf("%d connections, the slowest took %v", sum.Answered, sum.Slowest)
	assert.Empty(t, sum.Failed)
	assert.Greater(t, sum.Answered, 100)
	assert.Equal(t, h.Before.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the application ran on")
}

// endsBy is the time in which a deleted pod would be gone if its agent cut the open
// connections.
const endsBy = 5 * time.Second

// A deleted standby forwards its open connections until the clients end them, and ends
// afterwards.
func TestDeletedStandbyWaitsUntilOpenConnectionsEnd(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Lasting("relays"), "it needs a client on a node")
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/relays", kubectl.RolloutTimeout)
	all := h.Pods(h.App.Name)
	i := slices.IndexFunc(all, func(pod *corev1.Pod) bool { return pod.Name != h.Victim.Name && status.Ready(pod) })
	require.NotEqual(t, -1, i)
	standby := all[i]
	requests := client.Start(h.Space, h.Lab, h.Before.Node, client.Kept, net.JoinHostPort(standby.Status.PodIP, "8080"))
	h.Await(space.StartTimeout, "the standby answers", requests.Answered)
	app.DeletePod(h.Space, standby)
	h.Never(endsBy, "the end of a pod with an open connection", func() bool { return h.Pod(standby.Name) == nil })
	sum := requests.Stop()
	t.Logf("%d requests, the slowest took %v", sum.Answered, sum.Slowest)
	assert.Empty(t, sum.Failed)
	began := time.Now()
	h.Await(space.StartTimeout, "the standby is gone", func() bool { return h.Pod(standby.Name) == nil })
	assert.Less(t, time.Since(began), 20*time.Second, "its grace is 30 s")
}
