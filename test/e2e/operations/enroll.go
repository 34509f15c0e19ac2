// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// Usually a process ends after a lost election. But the replica that enrolls also answers the API
// server, so the replica must go on after a lost election.
func TestWebhookAdmitsPodsDespiteALostLeaderElection(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	leases := cluster.Client.CoordinationV1().Leases(webhook.Namespace)
	get := func() (*coordinationv1.Lease, error) {
		return leases.Get(t.Context(), "metaparticle-enroll", metav1.GetOptions{})
	}
	const thief = "thief"
	var before map[types.UID]int32
	s.Await(space.Soon, "every replica is ready", func() bool {
		before = webhookRestarts(t)
		return len(before) == int(*webhook.Deployment(t).Spec.Replicas)
	})
	require.NoError(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease, err := get()
		if err != nil {
			return err
		}
		lease.Spec.HolderIdentity, lease.Spec.RenewTime = new(thief), new(metav1.NowMicro())
		_, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{})
		return err
	}))
	// A faulty replica would end because of the lost election, maybe only after the next
	// election. So the test proposes more than 50 pods, even if the next election comes
	// earlier.
	admitted := 0
	admit := time.NewTicker(200 * time.Millisecond)
	defer admit.Stop()
	s.Await(space.StartTimeout, "a replica enrolls again", func() bool {
		select {
		case <-admit.C:
			_, err := webhook.Try(s, app.Bare(s, fmt.Sprintf("pod-%d", admitted), webhook.Claims))
			require.NoError(t, err, "after %d pods", admitted)
			admitted++
		default:
		}
		lease, err := get()
		return err == nil && space.IdentityOf(lease) != thief && admitted > 50
	})
	app.Deploy(s, app.Lasting("enrolled"))
	s.Await(space.Soon, "the same replicas are ready", func() bool { return maps.Equal(before, webhookRestarts(t)) })
}

// webhookRestarts returns the restart counts of the webhook's pods, by the pods' UIDs.
func webhookRestarts(t *testing.T) map[types.UID]int32 {
	t.Helper()
	restarts := map[types.UID]int32{}
	for _, pod := range webhook.Pods(t) {
		for _, status := range pod.Status.ContainerStatuses {
			restarts[pod.UID] += status.RestartCount
		}
	}
	return restarts
}

// The input is the report of a user whose pods stood by for ever without a word.
func TestRefusedLeaseIsShownToTheUser(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "few"}}
	quota.Spec.Hard = corev1.ResourceList{"count/leases.coordination.k8s.io": resource.MustParse("0")}
	quotas := s.Client.CoreV1().ResourceQuotas(s.Namespace)
	_, err := quotas.Create(t.Context(), quota, metav1.CreateOptions{})
	require.NoError(t, err)
	s.Await(space.Soon, "the quota is counted", func() bool {
		q, err := quotas.Get(t.Context(), quota.Name, metav1.GetOptions{})
		return err == nil && len(q.Status.Used) > 0
	})
	a := app.Singleton("shop")
	a.Replicas = 1
	app.Create(s, a)
	var event string
	s.Await(space.StartTimeout, "an Event on the Deployment", func() bool {
		events, err := s.Client.CoreV1().Events(s.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=EnrollRefused,involvedObject.kind=Deployment"})
		require.NoError(t, err)
		if len(events.Items) > 0 {
			event = events.Items[0].Message
		}
		return event != ""
	})
	assert.Contains(t, event, "exceeded quota: few")
	assert.Contains(t, newPlugin(s).run(0, "explain", "deployment/"+a.Name), "exceeded quota: few")
	require.NoError(t, quotas.Delete(t.Context(), quota.Name, metav1.DeleteOptions{}))
	app.AwaitRunning(s, a, space.StartTimeout)
}
