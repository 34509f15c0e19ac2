// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// longLease rides out 39 s without the API server: longer than one that is
// killed and started takes on any machine.
const longLease = 2 * time.Minute

// down kills a component and starts it again when the answer is called or the
// test ends.
func down(t *testing.T, l *lab.Cluster, node, component string) (up func()) {
	t.Helper()
	require.NoError(t, l.Kill(t.Context(), node, component))
	started := false
	up = func() {
		if !started {
			started = true
			assert.NoError(t, l.Start(context.Background(), node, component))
		}
	}
	t.Cleanup(func() {
		up()
		awaitAPI(t)
	})
	return up
}

// awaitAPI waits until the API server answers.
func awaitAPI(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		one, stop := context.WithTimeout(ctx, time.Second)
		_, err := cluster.client.CoreV1().Namespaces().Get(one, "default", metav1.GetOptions{})
		stop()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			require.NoError(t, err, "the API server answers")
		}
	}
}

// One outage, two workloads: shorter than the budget of the one, longer than
// that of the other.
func TestAPIServerAway(t *testing.T) {
	longer := deployHolding(t, suffering("longer"), "it kills the API server")
	shorter := longer
	shorter.a = singleton("shorter")
	shorter.a.annotations[api.LeaseDurationAnnotation] = longLease.String()
	shorter.deploy(shorter.a)
	shorter.before = longer.awaitRunning(shorter.a, soon)

	began := record.Now()
	var up func()
	longer.suffers(func() { up = down(t, longer.lab, lab.ControlPlane, "apiserver") })
	b := budget(t, faultLease)
	// On the kernel's word: one that is starved for a moment has not stopped. Nobody
	// can begin while the API server is away.
	stopped := longer.within(b.Duration, func() bool { return longer.vacant(longer.a.name) })
	up()
	awaitAPI(t)
	back := record.Now()
	t.Logf("the API server was away for %v", back-began)

	t.Run("longer than the budget stops the child in time", func(t *testing.T) {
		require.True(t, stopped)
		old := longer.process(longer.before.ID)
		assert.LessOrEqual(t, old.Last, longer.at+b.Deadline())
		assert.Greater(t, old.Last, longer.seen+b.RenewDeadline-b.Retry, "no unneeded haste")
	})
	t.Run("the pod that held starts again first, and at once", func(t *testing.T) {
		longer.await(startTimeout, "it runs again", func() bool { return longer.after(longer.a, longer.before) != nil })
		next := longer.after(longer.a, longer.before)
		assert.Equal(t, longer.before.Pod, next.Pod)
		assert.Less(t, next.Start-back, faultLease/2, "others have to wait for a lease")
		t.Logf("%v after the API server was back", next.Start-back)
		assert.Zero(t, longer.restarts(longer.a))
	})
	t.Run("shorter than the budget stops nothing", func(t *testing.T) {
		require.Less(t, back-began, budget(t, longLease).Outage(), "this machine is too slow for the test")
		shorter.never(handover, "another application", func() bool { return shorter.after(shorter.a, shorter.before) != nil })
		assert.Zero(t, shorter.process(shorter.before.ID).Signalled, "nobody asked it to stop")
		assert.Zero(t, shorter.restarts(shorter.a))
	})
}

func TestControlPlaneRestartedStopsNothing(t *testing.T) {
	a := singleton("control")
	a.annotations[api.LeaseDurationAnnotation] = longLease.String()
	h := deployHolding(t, a, "it restarts etcd and the API server")
	startEtcd := down(t, h.lab, lab.ControlPlane, "etcd")
	startAPI := down(t, h.lab, lab.ControlPlane, "apiserver")
	startEtcd()
	startAPI()
	awaitAPI(t)
	h.undisturbed()
}

func TestKubeletAndContainerdRestartedStopNothing(t *testing.T) {
	h := deployHolding(t, suffering("node-daemons"), "it restarts kubelet and containerd")
	node := h.victim.Spec.NodeName
	startKubelet := down(t, h.lab, node, "kubelet")
	startContainerd := down(t, h.lab, node, "containerd")
	startContainerd()
	startKubelet()
	awaitNode(t, node)
	h.undisturbed()
}

// undisturbed watches for a faultLease that no other application begins. In that
// time a slot of such a lease would have passed on; one of a longLease would not, so
// it must also be renewed again. Then it sees that the slot is handed over as ever.
func (h holding) undisturbed() {
	h.Helper()
	back := time.Now()
	h.never(faultLease+fresh, "another application", func() bool { return h.after(h.a, h.before) != nil })
	h.await(longLease, "it is renewed again", func() bool {
		renewed := h.lease(deploymentSlot(h.a.name)).Spec.RenewTime
		return renewed != nil && renewed.After(back)
	})
	assert.Zero(h, h.process(h.before.ID).Signalled, "nobody asked it to stop")
	h.awaitRunning(h.a, soon)
	assert.Zero(h, h.restarts(h.a))
	h.deletePod(h.victim)
	// That the kubelet hears of it may take a minute after a restart of the API server.
	h.await(startTimeout, "another takes over", func() bool { return h.after(h.a, h.before) != nil })
	assert.Less(h, h.vacancyAfter(h.a, h.before), faultLease/2, "by a release")
}
