// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// write changes a Lease as an administrator can.
func (s *space) write(slot string, change func(*coordinationv1.Lease)) {
	s.Helper()
	leases := s.client.CoordinationV1().Leases(s.name)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease, err := leases.Get(s.Context(), slot, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(lease)
		_, err = leases.Update(s.Context(), lease, metav1.UpdateOptions{})
		return err
	})
	require.NoError(s, err)
}

// steal makes somebody who is no pod the holder of a slot.
func (s *space) steal(slot string) {
	s.Helper()
	thief, now := "thief", metav1.NowMicro()
	s.write(slot, func(lease *coordinationv1.Lease) {
		lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.AcquireTime = &thief, &now, &now
	})
}

// vacant tells, while somebody else holds the slot, whether no application is
// there any more.
func (s *space) vacant(name string) bool {
	s.Helper()
	vacant, err := record.Vacant(s.dir, name)
	require.NoError(s, err)
	return vacant
}

func (s *space) giveBack(slot string) {
	s.Helper()
	nobody := ""
	s.write(slot, func(lease *coordinationv1.Lease) { lease.Spec.HolderIdentity = &nobody })
}

func TestTenLossesCountNoRestart(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, lasting("loser"), "it needs the record")
	slot := deploymentSlot(h.a.name)
	for range 10 {
		before := h.awaitRunning(h.a, soon)
		h.steal(slot)
		// Well before anybody takes the thief's slot for expired.
		h.await(released, "the holder's child is dead", func() bool { return h.vacant(h.a.name) })
		h.giveBack(slot)
		h.await(startTimeout, "somebody takes the slot again", func() bool { return h.after(h.a, before) != nil })
		assert.Less(t, h.vacancyAfter(h.a, before), released, "it was given back, and did not expire")
	}
	assert.Zero(t, h.restarts(h.a))
	for _, pod := range h.all(h.a.name) {
		assert.True(t, containersRun(pod), "no back-off, all standbys there: %s", pod.Name)
	}
}

func TestOnLossRestartAsksForAFreshContainer(t *testing.T) {
	t.Parallel()
	a := lasting("afresh")
	a.annotations[api.OnLossAnnotation] = string(api.OnLossRestart)
	h := deployHolding(t, a, "it needs the record")
	h.steal(deploymentSlot(a.name))
	h.await(startTimeout, "the container is a fresh one", func() bool { return h.restarts(a) == 1 })
	require.True(t, h.vacant(a.name))
	h.giveBack(deploymentSlot(a.name))
	h.await(startTimeout, "somebody takes the slot again", func() bool { return h.after(a, h.before) != nil })
}

// compat: lifecycle/exit-codes carried
func TestChildsOwnEndIsTheContainersEnd(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, lasting("ends"), "it needs the record")
	_, err := h.client.CoreV1().Pods(h.name).ProxyGet("http", h.victim.Name, "8080", "exit", map[string]string{"code": "37"}).
		DoRaw(t.Context())
	if err != nil {
		t.Logf("the application ended before it had answered: %v", err)
	}
	var next *record.Process
	h.await(soon, "somebody takes the slot", func() bool { next = h.after(h.a, h.before); return next != nil })
	assert.Less(t, h.vacancyAfter(h.a, h.before), released)
	if next.Pod == h.before.Pod {
		// The kubelet restarts it at once after its first end, and may have been faster
		// than all standbys. It is another run of the container all the same.
		h.await(soon, "the container is restarted", func() bool { return h.restarted(h.victim) > 0 })
	}
	h.await(startTimeout, "the kubelet sees the application's own exit code", func() bool {
		for _, status := range h.pod(h.victim.Name).Status.ContainerStatuses {
			if last := status.LastTerminationState.Terminated; last != nil {
				return last.ExitCode == 37
			}
		}
		return false
	})
}

// compat: lifecycle/crash-loop lifecycle/restart-always carried
func TestChildInCrashBackOffLeavesItsSlotToAStandby(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, lasting("crashes"), "it needs the record")
	// Whoever runs crashes, until a pod has done so twice: after its first crash the
	// kubelet restarts it at once, and it may be back before a standby has seen the
	// release; after its second it sits in a back-off of 10 s and more.
	previous, crashed := h.before, map[string]bool{}
	for again := false; !again; {
		before := previous
		h.mustSignal(h.pod(before.Pod), child, unix.SIGKILL)
		h.await(startTimeout, "one runs", func() bool { previous = h.after(h.a, before); return previous != nil })
		again, crashed[before.Pod] = crashed[before.Pod], true
		if again {
			assert.NotEqual(t, before.Pod, previous.Pod, "a standby takes the slot")
			assert.Less(t, h.vacancyAfter(h.a, before), released)
		}
	}
}

func TestRecreatedDeploymentWaitsForTheOldHolder(t *testing.T) {
	t.Parallel()
	a := lasting("recreated")
	a.grace = 8
	a.args = []string{"-ignore-term"}
	h := deployHolding(t, a, "it needs the record")
	deployments := h.client.AppsV1().Deployments(h.name)
	at := record.Now()
	require.NoError(t, deployments.Delete(t.Context(), a.name, metav1.DeleteOptions{}))
	require.Eventually(t, func() bool {
		_, err := deployments.Create(t.Context(), h.deployment(a), metav1.CreateOptions{})
		return err == nil
	}, soon, turn)
	grace := time.Duration(a.grace) * time.Second
	h.await(startTimeout, "a new pod runs", func() bool { return h.after(a, h.before) != nil })
	old := h.process(h.before.ID)
	assert.GreaterOrEqual(t, old.Last, at+grace-time.Second, "the old one had its whole grace period")
	// Its agent may be killed before it has proof, too: then the slot has to expire.
	assert.Less(t, h.vacancyAfter(a, h.before), lastingLease+released)
	t.Logf("vacant for %v after a grace that ran out", h.vacancyAfter(a, h.before))
}

// compat: lifecycle/grace carried
func TestHolderUsesThePodsWholeGraceAndReleases(t *testing.T) {
	t.Parallel()
	a := lasting("graceful")
	// More than the drain of a lost slot (9 s), less than the pod's grace.
	const delay = 12 * time.Second
	a.args = []string{"-stop-delay=" + delay.String()}
	h := deployHolding(t, a, "it needs the record")
	h.deletePod(h.victim)
	h.await(startTimeout, "a standby takes over", func() bool { return h.after(a, h.before) != nil })
	old := h.process(h.before.ID)
	assert.True(t, old.Ended, "it came to its own end")
	assert.GreaterOrEqual(t, old.Last-old.Signalled, delay)
	vacancy := h.vacancyAfter(a, h.before)
	assert.Less(t, vacancy, released)
	t.Logf("vacant for %v", vacancy)
}

func TestLeaseDeletionRefused(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, lasting("kept"), "it needs the record")
	slot := deploymentSlot(h.a.name)
	out, err := h.kubectl("", "delete", "lease", slot)
	require.Error(t, err, out)
	assert.Contains(t, out, h.victim.Name, "it says who holds it")
	assert.Contains(t, out, slot)
	t.Log(out)
	h.never(handover, "another application", func() bool { return h.after(h.a, h.before) != nil })

	// A namespace that goes takes its Leases with it, held or not.
	require.NoError(t, h.client.CoreV1().Namespaces().Delete(t.Context(), h.name, metav1.DeleteOptions{}))
	h.await(startTimeout, "the namespace is gone", func() bool {
		_, err := h.client.CoreV1().Namespaces().Get(t.Context(), h.name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func TestVanishedLeaseMakesEverybodyWaitAFullDuration(t *testing.T) {
	t.Parallel()
	h := deployHolding(t, singleton("vanished"), "it needs the record")
	slot := deploymentSlot(h.a.name)
	before := h.lease(slot)
	at := record.Now()
	// What the policy cannot refuse: somebody acts as enroll.
	config := rest.CopyConfig(cluster.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: enrollUser(t), Groups: []string{"system:masters"}}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	require.NoError(t, client.CoordinationV1().Leases(h.name).Delete(t.Context(), slot, metav1.DeleteOptions{}))
	h.await(soon, "the Lease is there again, held by someone", func() bool {
		now := h.lease(slot)
		return now.UID != "" && now.UID != before.UID && h.identity(slot) != ""
	})
	h.await(startTimeout, "one runs again", func() bool { return h.after(h.a, h.before) != nil })
	next := h.after(h.a, h.before)
	assert.GreaterOrEqual(t, next.Start-at, shortLease, "after a full duration")
	assert.Zero(t, h.restarts(h.a))
}

// enrollUser is whom the API server takes the webhook for, which enroll is
// part of.
func enrollUser(t *testing.T) string {
	t.Helper()
	d := webhookDeployment(t)
	return "system:serviceaccount:" + d.Namespace + ":" + d.Spec.Template.Spec.ServiceAccountName
}
