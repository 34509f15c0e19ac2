// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// toldRevision returns the revision that the webhook has written into the arguments of a
// pod's agent.
func toldRevision(pod *corev1.Pod) api.Revision {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == api.AgentContainer {
			return api.RecallRunArgs(c.Args).Revision
		}
	}
	return api.Revision{}
}

// awaitRevision waits until the holder's revision is newer than the revision in the argument
// "before", and the Lease shows the holder's revision. If the argument "before" is zero, every
// valid revision counts as newer. awaitRevision returns the holder's revision, which the webhook
// wrote into the arguments of the holder's agent.
func awaitRevision(s *space.Space, slot string, before api.Revision) api.Revision {
	s.Helper()
	var told api.Revision
	s.Await(space.StartTimeout, "a newer pod publishes its revision", func() bool {
		l, pod := s.Lease(slot), s.Holder(slot)
		if l == nil || pod == nil {
			return false
		}
		told = toldRevision(pod)
		return told.Valid() && l.Annotations[api.RevisionAnnotation] == told.String() && (before == api.Revision{} || told.NewerThan(before))
	})
	return told
}

// A controller numbers a new pod template before it makes pods from the template, and the
// webhook passes the number to the agent.
func TestRolloutGivesPodsAHigherRevisionNumber(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	ctx := t.Context()
	deployed, stateful, daemon := app.Lasting("deployed"), app.Lasting("stateful"), app.Lasting("daemon")
	deployed.Replicas, stateful.Replicas = 1, 1
	d, err := s.Client.AppsV1().Deployments(s.Namespace).Create(ctx, app.Deployment(s, deployed), metav1.CreateOptions{})
	require.NoError(t, err)
	st, err := s.Client.AppsV1().StatefulSets(s.Namespace).Create(ctx, app.StatefulSet(s, stateful), metav1.CreateOptions{})
	require.NoError(t, err)
	ds, err := s.Client.AppsV1().DaemonSets(s.Namespace).Create(ctx, &appsv1.DaemonSet{ObjectMeta: app.Meta(s, daemon),
		Spec: appsv1.DaemonSetSpec{Selector: daemon.Selector(), Template: app.Template(s, daemon)}}, metav1.CreateOptions{})
	require.NoError(t, err)
	workloads := []struct {
		kind string
		of   metav1.ObjectMeta
		hash string
	}{
		{"Deployment", d.ObjectMeta, appsv1.DefaultDeploymentUniqueLabelKey},
		{"StatefulSet", st.ObjectMeta, appsv1.ControllerRevisionHashLabelKey},
		{"DaemonSet", ds.ObjectMeta, appsv1.ControllerRevisionHashLabelKey},
	}
	first := map[string]api.Revision{}
	for _, w := range workloads {
		slot := api.SingletonLease(api.Workload{Group: "apps", Kind: w.kind, Name: w.of.Name}, "")
		told := awaitRevision(s, slot, api.Revision{})
		assert.Equal(t, string(w.of.UID), told.Workload)
		assert.EqualValues(t, 1, told.Number, w.kind)
		assert.Equal(t, s.AwaitHolder(slot).Labels[w.hash], told.Hash, w.kind)
		first[w.kind] = told
	}
	for _, w := range workloads {
		kubectl.Must(s, "", "set", "env", w.kind+"/"+w.of.Name, "RELEASE=2")
	}
	for _, w := range workloads {
		slot := api.SingletonLease(api.Workload{Group: "apps", Kind: w.kind, Name: w.of.Name}, "")
		kubectl.Must(s, "", "rollout", "status", w.kind+"/"+w.of.Name, kubectl.RolloutTimeout)
		second := awaitRevision(s, slot, first[w.kind])
		assert.EqualValues(t, 2, second.Number, w.kind)
		assert.Equal(t, first[w.kind].Workload, second.Workload)

		next := s.Lease(api.NextLease(slot))
		require.NotNil(t, next)
		assert.Empty(t, next.Spec.HolderIdentity, "no pod has asked")
	}
}
