// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

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
)

// Who loses an election usually ends its process. The replica that enrolls
// answers the API server, too, and goes on doing so.
func TestALostElectionInterruptsNoAdmission(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	leases := cluster.client.CoordinationV1().Leases(systemNamespace)
	get := func() (*coordinationv1.Lease, error) {
		return leases.Get(t.Context(), "metaparticle-enroll", metav1.GetOptions{})
	}
	const thief = "thief"
	var before map[types.UID]int32
	s.await(soon, "every replica is ready", func() bool {
		before = webhookRestarts(t)
		return len(before) == int(*webhookDeployment(t).Spec.Replicas)
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
	// Who lost may end a while before another is elected, or after that.
	admitted := 0
	admit := time.NewTicker(200 * time.Millisecond)
	defer admit.Stop()
	s.await(startTimeout, "a replica enrolls again", func() bool {
		select {
		case <-admit.C:
			_, err := s.try(s.bare(fmt.Sprintf("pod-%d", admitted), claims))
			require.NoError(t, err, "after %d pods", admitted)
			admitted++
		default:
		}
		lease, err := get()
		return err == nil && deref(lease.Spec.HolderIdentity) != thief && admitted > 50
	})
	s.deploy(lasting("enrolled"))
	s.await(soon, "the same replicas are ready", func() bool { return maps.Equal(before, webhookRestarts(t)) })
}

// webhookRestarts are the restart counts of the webhook's pods, by their UID.
func webhookRestarts(t *testing.T) map[types.UID]int32 {
	t.Helper()
	restarts := map[types.UID]int32{}
	for _, pod := range webhookPods(t) {
		for _, status := range pod.Status.ContainerStatuses {
			restarts[pod.UID] += status.RestartCount
		}
	}
	return restarts
}
