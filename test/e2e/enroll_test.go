// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// Who loses an election usually ends its process. The replica that enrolls
// answers the API server, too, and goes on doing so.
func TestALostTurnAtEnrollingInterruptsNoAdmission(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	leases := cluster.client.CoordinationV1().Leases(systemNamespace)
	holder := func() string {
		lease, err := leases.Get(t.Context(), "metaparticle-enroll", metav1.GetOptions{})
		require.NoError(t, err)
		return deref(lease.Spec.HolderIdentity)
	}
	before, restarts := holder(), webhookRestarts(t)
	require.NoError(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease, err := leases.Get(t.Context(), "metaparticle-enroll", metav1.GetOptions{})
		if err != nil {
			return err
		}
		thief, now := "thief", metav1.NowMicro()
		lease.Spec.HolderIdentity, lease.Spec.RenewTime = &thief, &now
		_, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{})
		return err
	}))
	admitted := 0
	admit := time.NewTicker(200 * time.Millisecond)
	defer admit.Stop()
	s.await(time.Minute, "a replica enrolls again", func() bool {
		select {
		case <-admit.C:
			_, err := s.try(s.bare(fmt.Sprintf("pod-%d", admitted), claims))
			require.NoError(t, err, "after %d pods", admitted)
			admitted++
		default:
		}
		now := holder()
		return now != "thief" && admitted > 20
	})
	assert.Equal(t, restarts, webhookRestarts(t), "%s lost the election", strings.SplitN(before, "_", 2)[0])
	s.deploy(singleton("enrolled"))
}

// webhookRestarts sums up the restart counts of the webhook's pods.
func webhookRestarts(t *testing.T) (sum int32) {
	t.Helper()
	pods, err := cluster.client.CoreV1().Pods(systemNamespace).
		List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + webhookName})
	require.NoError(t, err)
	for _, pod := range pods.Items {
		for _, status := range pod.Status.ContainerStatuses {
			sum += status.RestartCount
		}
	}
	return sum
}
