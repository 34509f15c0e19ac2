// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// Nodes send connections to a deleted standby until all of them know of the deletion. The
// standby's agent accepts them for as long, and no client sees that a pod has ended.
func TestServiceAnswersWhileAStandbyIsDeleted(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Lasting("lingers"), "it needs a client on a node")
	service := app.Service(h.Space, h.App)
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/lingers", kubectl.RolloutTimeout)
	endpoints := func() bool { return len(app.Endpoints(h.Space, service)) == 3 }
	h.Await(space.StartTimeout, "all pods are behind the Service", endpoints)

	requests := client.Start(h.Space, h.Lab, h.Before.Node, service.Spec.ClusterIP)
	h.Await(space.StartTimeout, "the Service answers", requests.Answered)
	deleted := 0
	for _, pod := range h.Pods(h.App.Name) {
		if pod.Name == h.Victim.Name {
			continue
		}
		app.DeletePod(h.Space, pod)
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
