// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// TestRolloutOfHoldersFinishesWithTheRemedyOfItsWarning stalls a rollout of which the webhook has
// warned, and then applies the maxUnavailable that the warning names.
//
// docs/reference/compatibility.md: kinds/only-holders-ready warned RolloutStalls
func TestRolloutOfHoldersFinishesWithTheRemedyOfItsWarning(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("holders")
	a.Replicas, a.Grace = 2, grace
	a.Annotations[api.ReadinessAnnotation] = string(api.ReadinessHolder)
	d := app.Deployment(s, a)
	apply := func(version string, unavailable int) string {
		t.Helper()
		limit := intstr.FromInt(unavailable)
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: &limit}
		d.Spec.Template.Annotations = map[string]string{"version": version}
		return kubectl.Must(s, kubectl.Manifest(s, d), "apply", "-f", "-")
	}
	status := func() appsv1.DeploymentStatus {
		now, err := s.Client.AppsV1().Deployments(s.Namespace).Get(t.Context(), a.Name, metav1.GetOptions{})
		if !assert.NoError(t, err) || now.Status.ObservedGeneration != now.Generation {
			return appsv1.DeploymentStatus{}
		}
		return now.Status
	}
	warned := apply("1", 1)
	assert.Contains(t, warned, "Warning: "+string(reason.RolloutStalls)+": ")
	remedy := regexp.MustCompile(`maxUnavailable of at least (\d+)`).FindStringSubmatch(warned)
	require.NotNil(t, remedy, warned)
	app.AwaitGated(s, a)
	before := app.AwaitRunning(s, a, space.StartTimeout)
	s.Await(space.Soon, "the holder alone is available", func() bool { return status().AvailableReplicas == 1 })

	apply("2", 1)
	stalled := func() bool { now := status(); return now.UpdatedReplicas == 2 && now.Replicas == 3 }
	s.Await(space.StartTimeout, "both new pods stand by, beside the old holder", stalled)
	s.Never(3*time.Second, "the rollout goes on", func() bool { return !stalled() })
	assert.Equal(t, before.ID, app.AwaitRunning(s, a, space.Soon).ID)

	least, err := strconv.Atoi(remedy[1])
	require.NoError(t, err)
	assert.Contains(t, apply("2", least), "the rollout replaces all pods, but only 1 of 2 can be Ready")
	s.Await(space.StartTimeout, "no old pod is left", func() bool { now := status(); return now.UpdatedReplicas == 2 && now.Replicas == 2 })
	s.Await(space.Soon, "a new pod runs", func() bool { now := app.After(s, a, before); return now != nil })
}
