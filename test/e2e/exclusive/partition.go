// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

func TestChildOnDisconnectedNodeDiesBeforeTakeover(t *testing.T) {
	h := holder.Deploy(t, app.Suffering("cut"), "it cuts a node off")
	var heal func()
	h.Suffers(func() { heal = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.Cut, h.Lab.Heal) })
	next := h.TakenOver()
	heal()
	h.StandsBy()
	assert.Zero(t, app.Restarts(h.Space, h.App), "a loss is no restart")
	assert.Equal(t, next.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the healed pod disturbs nobody")
}

func TestForceDeletedHolderKeepsTheSlotUntilExpiry(t *testing.T) {
	h := holder.Deploy(t, app.Suffering("forced"), "it cuts a node off")
	var heal func()
	h.Suffers(func() { heal = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.Cut, h.Lab.Heal) })
	now := int64(0)
	err := h.Client.CoreV1().Pods(h.Namespace).Delete(t.Context(), h.Victim.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	require.NoError(t, err)
	h.TakenOver()
	heal()
}

func TestChildDiesSoonAfterASuspendedNodeResumes(t *testing.T) {
	h := holder.Deploy(t, app.Suffering("frozen"), "it freezes a node")
	// No shim can prevent this overlap: after the thaw of a node, a child whose deadline has
	// passed runs on until its shim kills it. The shim acts immediately, but a busy kernel may
	// run the child first, and the shim up to 3 s later. A shim that waits for a renewal would
	// let the child live for longer than 3 s.
	const stalled = 3 * time.Second
	h.Tolerate = func(o record.Overlap) bool { return o.A.ID == h.Before.ID && o.Active < stalled }
	var thaw func()
	h.Suffers(func() { thaw = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.Freeze, h.Lab.Thaw) })
	next := h.TakenOver()
	woken := record.Now()
	thaw()
	h.StandsBy()
	// The test counts only the time in which the child wrote time stamps, because the thaw itself
	// may take a while.
	var lived time.Duration
	for _, span := range h.Process(h.Before.ID).Active() {
		lived += max(0, span.Until-max(span.From, woken))
	}
	t.Logf("after %v frozen it lived for %v", woken-h.At, lived)
	assert.Less(t, lived, stalled)
	assert.Equal(t, next.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID)
}

func TestStandbyTakesOverFromACrashedNode(t *testing.T) {
	h := holder.Deploy(t, app.Suffering("crash"), "it crashes a node")
	var boot func()
	h.Suffers(func() { boot = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.Crash, h.Lab.Boot) })
	next := h.TakenOver()
	boot()
	h.Await(space.StartTimeout, "the old pod stands by", func() bool {
		pod := h.Pod(h.Victim.Name)
		return pod == nil || status.ContainersRun(pod) && process.Find(pod, process.Shim) != nil
	})
	assert.Equal(t, next.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the booted node disturbs nobody")
}

func TestShimDrainsByDeadlineWhileAgentIsFrozen(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Suffering("agent-frozen"), "it freezes a process")
	var thaw func()
	h.Suffers(func() { thaw = process.Freeze(h.Space, h.Victim, process.Agent) })
	next := h.TakenOver()
	thaw()
	h.StandsBy()
	assert.Zero(t, app.Restarts(h.Space, h.App), "a loss is no restart")
	assert.Equal(t, next.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID)
}

func TestAgentNeverReleasesWhileTheShimIsFrozen(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Suffering("shim-frozen"), "it freezes a process")
	thaw := process.Freeze(h.Space, h.Victim, process.Shim)
	h.Never(lease.Fault+lease.Handover, "another application", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	app.AwaitRunning(h.Space, h.App, space.Soon)
	h.Await(space.Soon, "an Event tells of the silent shim", func() bool { return h.Event("Pod", h.Victim.Name, "ShimSilent") != nil })
	thaw()
	// The shim wakes after its deadline. The kernel's scheduler decides whether the shim
	// kills the child before the next grant arrives. So the test kills the child, if it
	// still lives. Whoever kills the child, the shim reports the death, and the slot is
	// free.
	process.Signal(h.Space, h.Victim, process.Child, unix.SIGKILL)
	h.Await(lease.Fault+space.Soon, "another takes over", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	app.VacantFor(h.Space, h.App, h.Before, lease.Fault/2, "the child's death is proven")
}
