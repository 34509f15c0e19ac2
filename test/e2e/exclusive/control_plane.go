// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// The same outage of the API server affects two applications. For the application named
// "longer", the outage is longer than its lease allows, so this application must stop. For the
// application named "shorter", the outage is shorter than its lease allows.
func TestHoldSurvivesOnlyShortAPIServerOutages(t *testing.T) {
	longer := holder.Deploy(t, app.Suffering("longer"), "it kills the API server")
	// The outage lasts until the other application has stopped and the API server has started again.
	shorterLease := 2 * lease.Long
	short := app.Singleton("shorter")
	short.Annotations[api.LeaseDurationAnnotation] = shorterLease.String()
	shorter := longer.Beside(short)

	began := record.Now()
	var up func()
	longer.Suffers(func() { up = fault.Component(t, longer.Lab, lab.ControlPlane, "apiserver") })
	b := lease.Budget(t, lease.Fault)
	// The test checks the flock of the record to see whether the application has ended. The time
	// stamps in the record do not show the end: an application that still runs may starve, and
	// write its time stamps late. No pod can start the application while the API server is away.
	stopped := longer.Within(b.Duration, func() bool { return app.Vacant(longer.Space, longer.App.Name) })
	up()
	fault.AwaitAPI(t)
	back := record.Now()
	t.Logf("the API server was away for %v", back-began)

	t.Run("longer than the budget stops the child in time", func(t *testing.T) {
		require.True(t, stopped)
		old := longer.Process(longer.Before.ID)
		assert.LessOrEqual(t, old.Last, longer.At+b.Deadline())
		assert.Greater(t, old.Last, longer.Seen+b.RenewDeadline-b.Retry, "no unneeded haste")
	})
	t.Run("the pod that held starts again first, and at once", func(t *testing.T) {
		longer.Await(space.StartTimeout, "it runs again", func() bool { return app.After(longer.Space, longer.App, longer.Before) != nil })
		next := app.After(longer.Space, longer.App, longer.Before)
		assert.Equal(t, longer.Before.Pod, next.Pod)
		assert.Less(t, next.Start-back, lease.Fault/2, "others have to wait for a lease")
		t.Logf("%v after the API server was back", next.Start-back)
		assert.Zero(t, app.Restarts(longer.Space, longer.App))
	})
	t.Run("shorter than the budget stops nothing", func(t *testing.T) {
		require.Less(t, back-began, lease.Budget(t, shorterLease).Outage(), "this machine is too slow for the test")
		shorter.Never(lease.Handover, "another application", func() bool { return app.After(shorter.Space, shorter.App, shorter.Before) != nil })
		assert.Zero(t, shorter.Process(shorter.Before.ID).Signalled, "nobody asked it to stop")
		assert.Zero(t, app.Restarts(shorter.Space, shorter.App))
	})
}

func TestApplicationSurvivesAControlPlaneRestart(t *testing.T) {
	a := app.Singleton("control")
	a.Annotations[api.LeaseDurationAnnotation] = lease.Long.String()
	h := holder.Deploy(t, a, "it restarts etcd and the API server")
	startEtcd := fault.Component(t, h.Lab, lab.ControlPlane, "etcd")
	startAPI := fault.Component(t, h.Lab, lab.ControlPlane, "apiserver")
	startEtcd()
	startAPI()
	fault.AwaitAPI(t)
	undisturbed(h)
}

func TestApplicationSurvivesKubeletAndContainerdRestarts(t *testing.T) {
	h := holder.Deploy(t, app.Suffering("node-daemons"), "it restarts kubelet and containerd")
	node := h.Victim.Spec.NodeName
	startKubelet := fault.Component(t, h.Lab, node, "kubelet")
	startContainerd := fault.Component(t, h.Lab, node, "containerd")
	startContainerd()
	startKubelet()
	fault.AwaitNode(t, node)
	undisturbed(h)
}

// undisturbed checks that the application continues for the duration of [lease.Fault]. Then
// the agent must renew the slot and hand it over. A slot with [lease.Long] does not
// expire in that time, so only the renewal shows that the agent works.
func undisturbed(h holder.Holder) {
	h.Helper()
	back := time.Now()
	h.Never(lease.Fault+space.Fresh, "another application", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	h.Await(lease.Long, "it is renewed again", func() bool {
		renewed := h.Lease(lease.OfDeployment(h.App.Name)).Spec.RenewTime
		return renewed != nil && renewed.After(back)
	})
	assert.Zero(h, h.Process(h.Before.ID).Signalled, "nobody asked it to stop")
	app.AwaitRunning(h.Space, h.App, space.Soon)
	assert.Zero(h, app.Restarts(h.Space, h.App))
	app.DeletePod(h.Space, h.Victim)
	// After a restart of the API server the kubelet may learn of the deletion a minute late.
	h.Await(space.StartTimeout, "another takes over", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	app.VacantFor(h.Space, h.App, h.Before, lease.Fault/2, "by a release")
}
