// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
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
