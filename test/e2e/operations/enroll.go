// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/diagnosis"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

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
	s.Await(space.StartTimeout, "the agent has run for long enough to be silent", func() bool {
		pods := s.Pods(a.Name)
		return len(pods) == 1 && slices.ContainsFunc(pods[0].Status.InitContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.State.Running != nil && time.Since(c.State.Running.StartedAt.Time) > diagnosis.Lasts+time.Second
		})
	})
	explained := newPlugin(s).run(1, "explain", "deployment/"+a.Name)
	assert.Contains(t, explained, "exceeded quota: few")
	assert.Contains(t, explained, "has no Lease, because enroll has not made it")
	assert.NotContains(t, explained, "NetworkPolicy", "the pod reaches the API server")
	require.NoError(t, quotas.Delete(t.Context(), quota.Name, metav1.DeleteOptions{}))
	app.AwaitRunning(s, a, space.StartTimeout)
}
