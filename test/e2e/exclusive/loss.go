// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

func TestByDefaultALostHoldRestartsNoContainer(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Lasting("loser"), "it needs the record")
	slot := lease.OfDeployment(h.App.Name)
	for range 10 {
		before := app.AwaitRunning(h.Space, h.App, space.Soon)
		lease.Steal(h.Space, slot)
		// lease.Steal has written the name of a thief as the holder. The wait ends well before the
		// thief's lease expires.
		h.Await(lease.Released, "the holder's child is dead", func() bool { return app.Vacant(h.Space, h.App.Name) })
		lease.GiveBack(h.Space, slot)
		h.Await(space.StartTimeout, "somebody takes the slot again", func() bool { return app.After(h.Space, h.App, before) != nil })
		app.VacantFor(h.Space, h.App, before, lease.Released, "it was given back, and did not expire")
	}
	assert.Zero(t, app.Restarts(h.Space, h.App))
	for _, pod := range h.Pods(h.App.Name) {
		assert.True(t, status.ContainersRun(pod), "no back-off, all standbys there: %s", pod.Name)
	}
}

func TestLostHoldRestartsContainerIfAnnotationSaysRestart(t *testing.T) {
	t.Parallel()
	a := app.Lasting("afresh")
	a.Annotations[api.OnLossAnnotation] = string(api.OnLossRestart)
	h := holder.Deploy(t, a, "it needs the record")
	lease.Steal(h.Space, lease.OfDeployment(a.Name))
	h.Await(space.StartTimeout, "the container is a fresh one", func() bool { return app.Restarts(h.Space, a) == 1 })
	require.True(t, app.Vacant(h.Space, a.Name))
	lease.GiveBack(h.Space, lease.OfDeployment(a.Name))
	h.Await(space.StartTimeout, "somebody takes the slot again", func() bool { return app.After(h.Space, a, h.Before) != nil })
}

// docs/reference/compatibility.md: lifecycle/exit-codes carried
func TestContainerReturnsTheChildsExitCode(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Lasting("ends"), "it needs the record")
	_, err := h.Client.CoreV1().Pods(h.Namespace).ProxyGet("http", h.Victim.Name, "8080", "exit", map[string]string{"code": "37"}).
		DoRaw(t.Context())
	if err != nil {
		t.Logf("the application ended before it had answered: %v", err)
	}
	var next *record.Process
	h.Await(space.Soon, "somebody takes the slot", func() bool { next = app.After(h.Space, h.App, h.Before); return next != nil })
	app.VacantFor(h.Space, h.App, h.Before, lease.Released, "by a release")
	if next.Pod == h.Before.Pod {
		// When a container ends for the first time, the kubelet restarts the container immediately,
		// perhaps before any standby acts. Then the same pod holds again.
		h.Await(space.Soon, "the container is restarted", func() bool { return status.Restarted(h.Space, h.Victim) > 0 })
	}
	h.Await(space.StartTimeout, "the kubelet sees the application's own exit code", func() bool {
		for _, status := range h.Pod(h.Victim.Name).Status.ContainerStatuses {
			if last := status.LastTerminationState.Terminated; last != nil {
				return last.ExitCode == 37
			}
		}
		return false
	})
}

// docs/reference/compatibility.md: lifecycle/crash-loop lifecycle/restart-always carried
func TestStandbyTakesOverFromACrashingHolder(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Lasting("crashes"), "it needs the record")
	// The test crashes each holder until one pod has crashed twice. After a first crash the kubelet
	// restarts the container immediately, perhaps before a standby has seen the release. After a
	// second crash the container waits in a back-off of at least 10 s, so a standby must take the
	// slot.
	previous, crashed := h.Before, map[string]bool{}
	for again := false; !again; {
		before := previous
		process.MustSignal(h.Space, h.Pod(before.Pod), process.Child, unix.SIGKILL)
		h.Await(space.StartTimeout, "one runs", func() bool { previous = app.After(h.Space, h.App, before); return previous != nil })
		again, crashed[before.Pod] = crashed[before.Pod], true
		if again {
			assert.NotEqual(t, before.Pod, previous.Pod, "a standby takes the slot")
			app.VacantFor(h.Space, h.App, before, lease.Released, "by a release")
		}
	}
}

// docs/reference/compatibility.md: lifecycle/grace carried
func TestDeletedHolderUsesPodGraceThenReleasesSlot(t *testing.T) {
	t.Parallel()
	a := app.Lasting("graceful")
	// The delay is longer than the drain time after a loss (9 s), and shorter than the
	// grace.
	const delay = 12 * time.Second
	a.Args = []string{"-stop-delay=" + delay.String()}
	h := holder.Deploy(t, a, "it needs the record")
	app.DeletePod(h.Space, h.Victim)
	h.Await(space.StartTimeout, "a standby takes over", func() bool { return app.After(h.Space, a, h.Before) != nil })
	old := h.Process(h.Before.ID)
	assert.True(t, old.Ended, "it came to its own end")
	assert.GreaterOrEqual(t, old.Last-old.Signalled, delay)
	app.VacantFor(h.Space, a, h.Before, lease.Released, "by a release")
	t.Logf("vacant for %v", app.VacancyAfter(h.Space, a, h.Before))
}

func TestDeletionOfAHeldLeaseIsRefused(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Lasting("kept"), "it needs the record")
	slot := lease.OfDeployment(h.App.Name)
	out, err := kubectl.Run(h.Space, "", "delete", "lease", slot)
	require.Error(t, err, out)
	assert.Contains(t, out, h.Victim.Name, "it says who holds it")
	assert.Contains(t, out, slot)
	t.Log(out)
	h.Never(lease.Handover, "another application", func() bool { return app.After(h.Space, h.App, h.Before) != nil })

	// The end of a namespace deletes its Leases, held or not.
	require.NoError(t, h.Client.CoreV1().Namespaces().Delete(t.Context(), h.Namespace, metav1.DeleteOptions{}))
	h.Await(space.StartTimeout, "the namespace is gone", func() bool {
		_, err := h.Client.CoreV1().Namespaces().Get(t.Context(), h.Namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func TestRecreatedLeaseStaysUnavailableForALeaseDuration(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Singleton("vanished"), "it needs the record")
	slot := lease.OfDeployment(h.App.Name)
	before := h.Lease(slot)
	at := record.Now()
	// Except at the end of a namespace, a policy lets only enroll delete a held Lease. So
	// the test impersonates enroll.
	config := rest.CopyConfig(cluster.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: enrollUser(t), Groups: []string{"system:masters"}}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	require.NoError(t, client.CoordinationV1().Leases(h.Namespace).Delete(t.Context(), slot, metav1.DeleteOptions{}))
	h.Await(space.Soon, "the Lease is there again, held by someone", func() bool {
		now := h.Lease(slot)
		return now.UID != "" && now.UID != before.UID && h.Identity(slot) != ""
	})
	h.Await(space.StartTimeout, "one runs again", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	next := app.After(h.Space, h.App, h.Before)
	assert.GreaterOrEqual(t, next.Start-at, lease.Short, "after a full duration")
	assert.Zero(t, app.Restarts(h.Space, h.App))
}

// enrollUser returns the user name of the webhook, of which enroll is a part.
func enrollUser(t *testing.T) string {
	t.Helper()
	d := webhook.Deployment(t)
	return "system:serviceaccount:" + d.Namespace + ":" + d.Spec.Template.Spec.ServiceAccountName
}
