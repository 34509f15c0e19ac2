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

// nodeTimeout is for a node that comes back to be Ready, and for an API server to
// answer. A kubelet asks an API server that was away again and again less often, up
// to a minute; 10 s later it tells of itself, 5 s later the node's taints are taken
// away. The rest is for a machine that is busy.
const nodeTimeout = 2 * time.Minute

// faultLease is for a holder that a fault is done to: long enough for the next
// holder, and for this one until then, to ride out the 3 s for which a busy machine
// stalls (it rides out 5.6 s), and no longer, because it is waited for.
const faultLease = 20 * time.Second

// suffering is a singleton of which a fault takes the slot.
func suffering(name string) app {
	a := singleton(name)
	a.annotations[api.LeaseDurationAnnotation] = faultLease.String()
	return a
}

// budget is how a lease is divided.
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

// startsWithin is what a component that cannot start takes to say so.
const startsWithin = 2 * time.Second

// revive starts what has ended on a node, as an init system would, and tells
// whether it had to: one machine has all the nodes, and a kubelet or kube-proxy that
// finds its inotify instances used up ends at its start. A node without kube-proxy
// is Ready, and no agent on it reaches the API server.
func revive(ctx context.Context, node string) (ended bool) {
	for _, component := range lab.Components(node) {
		if cluster.lab.PID(node, component) == 0 {
			ended = true
			_ = cluster.lab.Start(ctx, node, component)
		}
	}
	return ended
}

// awaitNode waits until a node is Ready and nothing keeps pods from it.
func awaitNode(t *testing.T, name string) {
	t.Helper()
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		if revive(ctx, name) {
			started = time.Now()
		}
		node, err := cluster.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(node.Spec.Taints) == 0 && nodeReady(node) && time.Since(started) > startsWithin {
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
	// seen is when the last renewal was written that was read before the fault, and
	// at when the fault was complete: the holder's last renewal is between them.
	seen, at time.Duration
}

// renewed is when the last renewal of a slot was written, on the record's clock
// and the API server's word: what a watch has seen may be old.
func (s *space) renewed(slot string) time.Duration {
	s.Helper()
	lease, err := s.client.CoordinationV1().Leases(s.name).Get(s.Context(), slot, metav1.GetOptions{})
	require.NoError(s, err)
	require.NotNil(s, lease.Spec.RenewTime)
	return record.Now() - time.Since(lease.Spec.RenewTime.Time)
}

func deployHolding(t *testing.T, a app, why string) holding {
	t.Helper()
	l := needLab(t, why)
	s := newSpace(t)
	s.deploy(a)
	h := holding{space: s, a: a, lab: l, before: s.awaitRunning(a, soon)}
	h.victim = s.pod(h.before.Pod)
	require.NotNil(t, h.victim)
	return h
}

// suffers does a fault, and notes between which instants the last renewal was:
// not before the one that was seen, not after the fault was complete.
func (h *holding) suffers(do func()) {
	h.Helper()
	h.seen = h.renewed(deploymentSlot(h.a.name))
	do()
	h.at = record.Now()
}

// takenOver waits for the next application, and holds both to the time budget
// of an expiry that began with the fault.
func (h *holding) takenOver() *record.Process {
	h.Helper()
	b := budget(h.T, faultLease)
	var next *record.Process
	h.await(b.Duration+soon, "another takes over", func() bool {
		next = h.after(h.a, h.before)
		return next != nil
	})
	old := h.process(h.before.ID)
	assert.LessOrEqual(h, old.Last, h.at+b.Deadline(), "the child is dead at the deadline")
	assert.GreaterOrEqual(h, next.Start, h.seen+b.Duration, "nobody starts before the lease has run out")
	assert.LessOrEqual(h, next.Start, h.at+b.Duration+b.Duration/2, "somebody starts when the lease has run out")
	assert.NotEqual(h, h.victim.Spec.NodeName, next.Node)
	h.Logf("child dead %v after the fault, the next one started %v after it",
		(old.Last - h.at).Round(time.Millisecond), (next.Start - h.at).Round(time.Millisecond))
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
	h := deployHolding(t, suffering("cut"), "it cuts a node off")
	var heal func()
	h.suffers(func() { heal = fault(t, h.victim.Spec.NodeName, h.lab.Cut, h.lab.Heal) })
	next := h.takenOver()
	heal()
	h.standsBy()
	assert.Zero(t, h.restarts(h.a), "a loss is no restart")
	assert.Equal(t, next.ID, h.awaitRunning(h.a, soon).ID, "the healed pod disturbs nobody")
}

func TestForceDeletedWhileCutOffNobodyStartsBeforeTheLeaseHasRunOut(t *testing.T) {
	h := deployHolding(t, suffering("forced"), "it cuts a node off")
	var heal func()
	h.suffers(func() { heal = fault(t, h.victim.Spec.NodeName, h.lab.Cut, h.lab.Heal) })
	now := int64(0)
	err := h.client.CoreV1().Pods(h.name).Delete(t.Context(), h.victim.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	require.NoError(t, err)
	h.takenOver()
	heal()
}

func TestNodeFrozenAndThawedIsDeadWithinSeconds(t *testing.T) {
	h := deployHolding(t, suffering("frozen"), "it freezes a node")
	// What nobody can prevent: frozen past its deadline, the child is there
	// beside the next one, and runs on until its shim kills it. That is an instant of
	// the shim's, but the machine may run the child and keep the shim waiting, for 3 s;
	// a shim that waited to hear of a renewal would let it live for longer.
	const stalled = 3 * time.Second
	h.tolerate = func(o record.Overlap) bool { return o.A.ID == h.before.ID && o.Active < stalled }
	var thaw func()
	h.suffers(func() { thaw = fault(t, h.victim.Spec.NodeName, h.lab.Freeze, h.lab.Thaw) })
	next := h.takenOver()
	woken := record.Now()
	thaw()
	h.standsBy()
	// By its own stamps: thawing may take a while, too.
	var lived time.Duration
	for _, span := range h.process(h.before.ID).Active() {
		lived += max(0, span.Until-max(span.From, woken))
	}
	t.Logf("after %v frozen it lived for %v", woken-h.at, lived)
	assert.Less(t, lived, stalled)
	assert.Equal(t, next.ID, h.awaitRunning(h.a, soon).ID)
}

func TestNodeCrashedAndBooted(t *testing.T) {
	h := deployHolding(t, suffering("crash"), "it crashes a node")
	var boot func()
	h.suffers(func() { boot = fault(t, h.victim.Spec.NodeName, h.lab.Crash, h.lab.Boot) })
	next := h.takenOver()
	boot()
	h.await(startTimeout, "the old pod stands by", func() bool {
		pod := h.pod(h.victim.Name)
		return pod == nil || containersRun(pod) && find(pod, shim) != nil
	})
	assert.Equal(t, next.ID, h.awaitRunning(h.a, soon).ID, "the booted node disturbs nobody")
}

func TestAgentAloneFrozenItsShimDrainsInTime(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, suffering("agent-frozen"), "it freezes a process")
	var thaw func()
	h.suffers(func() { thaw = h.freeze(h.victim, agent) })
	next := h.takenOver()
	thaw()
	h.standsBy()
	assert.Zero(t, h.restarts(h.a), "a loss is no restart")
	assert.Equal(t, next.ID, h.awaitRunning(h.a, soon).ID)
}

func TestShimAloneFrozenTheAgentRenewsAndNeverReleases(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, suffering("shim-frozen"), "it freezes a process")
	thaw := h.freeze(h.victim, shim)
	h.never(faultLease+handover, "another application", func() bool { return h.after(h.a, h.before) != nil })
	h.awaitRunning(h.a, soon)
	h.await(soon, "an Event tells of the silent shim", func() bool { return h.event("Pod", h.victim.Name, "ShimSilent") != nil })
	thaw()
	// It wakes past the last deadline that it had heard of. Whether it stops
	// the child before it has heard of the next one is up to the scheduler;
	// whatever it does, it tells, and the slot is free.
	h.signal(h.victim, child, unix.SIGKILL)
	h.await(faultLease+soon, "another takes over", func() bool { return h.after(h.a, h.before) != nil })
	assert.Less(t, h.vacancyAfter(h.a, h.before), faultLease/2, "the child's death is proven")
}
