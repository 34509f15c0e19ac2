// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// nodeTimeout is for a node that comes back to be Ready.
const nodeTimeout = time.Minute

// budget is how the shortest lease is divided.
func budget(t *testing.T, d time.Duration) api.Budget {
	b, err := api.NewBudget(d)
	require.NoError(t, err)
	return b
}

// fault is done to a node now, and undone when the answer is called or the
// test ends.
func fault(t *testing.T, node string, do, undo func(context.Context, string) error) (undone func()) {
	t.Helper()
	require.NoError(t, do(t.Context(), node))
	done := false
	undone = func() {
		if !done {
			done = true
			assert.NoError(t, undo(context.Background(), node))
			awaitNode(t, node)
		}
	}
	t.Cleanup(undone)
	return undone
}

// awaitNode waits until a node is Ready and nothing keeps pods from it.
func awaitNode(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		node, err := cluster.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(node.Spec.Taints) == 0 && nodeReady(node) {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			assert.Fail(t, "node is not Ready again", "%s: %v", name, err)
			return
		}
	}
}

func nodeReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// holding is a singleton whose holder's node is about to suffer.
type holding struct {
	*space
	a   app
	lab *lab.Cluster
	// before is the application's process, victim its pod.
	before *record.Process
	victim *corev1.Pod
}

func deployHolding(t *testing.T, a app, why string) holding {
	t.Helper()
	l := needLab(t, why)
	s := newSpace(t)
	s.deploy(a)
	h := holding{space: s, a: a, lab: l, before: s.awaitRunning(a, handover)}
	h.victim = s.pod(h.before.Pod)
	require.NotNil(t, h.victim)
	return h
}

// takenOver waits for the next application, and holds both to the time budget
// of an expiry that began at the instant of the fault.
func (h holding) takenOver(at time.Duration) *record.Process {
	h.Helper()
	b := budget(h.T, shortLease)
	var next *record.Process
	h.await(takeover+handover, "another takes over", func() bool {
		next = h.after(h.a, h.before)
		return next != nil
	})
	old := h.process(h.before.ID)
	assert.LessOrEqual(h, old.Last, at+b.Deadline(), "the child is dead at the deadline")
	assert.GreaterOrEqual(h, next.Start, at+b.Duration-b.Renew-fresh, "nobody starts before the lease has run out")
	assert.LessOrEqual(h, next.Start, at+takeover, "somebody starts when the lease has run out")
	assert.NotEqual(h, h.victim.Spec.NodeName, next.Node)
	h.Logf("child dead %v after the fault, the next one started %v after it",
		(old.Last - at).Round(time.Millisecond), (next.Start - at).Round(time.Millisecond))
	return next
}

// process is what the record says now of a process.
func (h holding) process(id string) record.Process {
	h.Helper()
	for _, p := range h.record(h.a.recordName()) {
		if p.ID == id {
			return p
		}
	}
	require.FailNow(h, "not in the record: "+id)
	return record.Process{}
}

// standsBy waits until the pod that lost its slot stands by.
func (h holding) standsBy() {
	h.Helper()
	h.await(startTimeout, "the old pod stands by", func() bool {
		pod := h.pod(h.victim.Name)
		return pod != nil && containersRun(pod) && find(pod, shim) != nil && find(pod, child) == nil &&
			pod.Labels[api.RoleLabel] == ""
	})
}

func TestNodeCutOffItsChildIsDeadBeforeAnotherStarts(t *testing.T) {
	h := deployHolding(t, singleton("cut"), "it cuts a node off")
	at := record.Now()
	heal := fault(t, h.victim.Spec.NodeName, h.lab.Cut, h.lab.Heal)
	next := h.takenOver(at)
	heal()
	h.standsBy()
	assert.Zero(t, h.restarts(h.a), "a loss is no restart")
	assert.Equal(t, next.ID, h.awaitRunning(h.a, handover).ID, "the healed pod disturbs nobody")
}

func TestForceDeletedWhileCutOffNobodyStartsBeforeTheLeaseHasRunOut(t *testing.T) {
	h := deployHolding(t, singleton("forced"), "it cuts a node off")
	at := record.Now()
	heal := fault(t, h.victim.Spec.NodeName, h.lab.Cut, h.lab.Heal)
	now := int64(0)
	err := h.client.CoreV1().Pods(h.name).Delete(t.Context(), h.victim.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	require.NoError(t, err)
	h.takenOver(at)
	heal()
}

func TestNodeFrozenAndThawedActsForAnInstantAtMost(t *testing.T) {
	h := deployHolding(t, singleton("frozen"), "it freezes a node")
	// What nobody can prevent: frozen past its deadline, the child is there
	// beside the next one, and runs on for the instant that its death takes.
	const instant = time.Second
	h.tolerate = func(o record.Overlap) bool { return o.A.ID == h.before.ID && o.Active < instant }
	at := record.Now()
	thaw := fault(t, h.victim.Spec.NodeName, h.lab.Freeze, h.lab.Thaw)
	next := h.takenOver(at)
	woken := record.Now()
	thaw()
	h.standsBy()
	old := h.process(h.before.ID)
	t.Logf("after %v frozen it lived for %v", woken-at, old.Last-woken)
	assert.Less(t, old.Last, woken+instant)
	assert.Equal(t, next.ID, h.awaitRunning(h.a, handover).ID)
}

func TestNodeCrashedAndBooted(t *testing.T) {
	h := deployHolding(t, singleton("crash"), "it crashes a node")
	at := record.Now()
	boot := fault(t, h.victim.Spec.NodeName, h.lab.Crash, h.lab.Boot)
	next := h.takenOver(at)
	boot()
	h.await(startTimeout, "the old pod stands by", func() bool {
		pod := h.pod(h.victim.Name)
		return pod == nil || containersRun(pod) && find(pod, shim) != nil
	})
	assert.Equal(t, next.ID, h.awaitRunning(h.a, handover).ID, "the booted node disturbs nobody")
}

func TestAgentAloneFrozenItsShimDrainsInTime(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, singleton("agent-frozen"), "it freezes a process")
	at := record.Now()
	thaw := h.freeze(h.victim, agent)
	next := h.takenOver(at)
	thaw()
	h.standsBy()
	assert.Zero(t, h.restarts(h.a), "a loss is no restart")
	assert.Equal(t, next.ID, h.awaitRunning(h.a, handover).ID)
}

func TestShimAloneFrozenTheAgentRenewsAndNeverReleases(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, singleton("shim-frozen"), "it freezes a process")
	thaw := h.freeze(h.victim, shim)
	h.never(shortLease+handover, "another application", func() bool { return h.after(h.a, h.before) != nil })
	h.awaitRunning(h.a, handover)
	h.await(handover, "an Event tells of the silent shim", func() bool { return h.event("Pod", h.victim.Name, "ShimSilent") != nil })
	thaw()
	// It wakes past the last deadline that it had heard of. Whether it stops
	// the child before it has heard of the next one is up to the scheduler;
	// whatever it does, it tells, and the slot is free.
	h.signal(h.victim, child, unix.SIGKILL)
	h.await(takeover, "another takes over", func() bool { return h.after(h.a, h.before) != nil })
	assert.Less(t, h.vacancyAfter(h.a, h.before), handover, "the child's death is proven")
}
