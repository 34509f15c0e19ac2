// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// later returns an application of one replica that claims nothing and has a condition.
func later(name, condition string) app.App {
	return app.App{Name: name, Replicas: 1, Annotations: map[string]string{api.AfterAnnotation: condition}}
}

// waits reports whether a pod of the application waits in its injected init container.
func waits(s *space.Space, a app.App) bool {
	for _, pod := range s.Pods(a.Name) {
		for _, c := range pod.Status.InitContainerStatuses {
			if c.Name == api.AfterContainer && c.State.Running != nil {
				return true
			}
		}
	}
	return false
}

// docs/reference/compatibility.md: pod/conditions carried
func TestPodStartsAfterTheAwaitedKeyIsDone(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	a := later("later", api.OnceLease(work)+"=1")
	app.Create(s, a)
	s.Await(space.StartTimeout, "the pod waits", func() bool { return waits(s, a) })
	pod := s.Pods(a.Name)[0]
	assert.Equal(t, api.GatedAfter, pod.Labels[api.GatedLabel])
	assert.Len(t, pod.Spec.InitContainers, 1)
	s.Await(space.StartTimeout, "an Event says so", func() bool { return s.Event("Pod", pod.Name, "WaitsForCondition") != nil })
	assert.Empty(t, s.Lease(api.OnceLease(work)).UID, "no pod has claimed the work, so enroll has made no Lease")

	app.Create(s, migrated("1"))
	started := app.AwaitRunning(s, a, space.StartTimeout)
	require.Len(t, successes(s), 1)
	assert.Less(t, successes(s)[0].Last, started.Start, "the work has ended before")

	kubectl.Must(s, "", "delete", "deployment", "shop")
	app.DeletePod(s, s.Pod(pod.Name))
	s.Await(space.StartTimeout, "the next pod starts without any pod of the work", func() bool {
		now := s.Running(a.Name)
		return now != nil && now.Pod != pod.Name
	})
}

// docs/reference/compatibility.md: pod/conditions carried
func TestPodStartsAfterTheAwaitedHolderServes(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	database := app.Lasting("db")
	database.Edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, InitialDelaySeconds: 5,
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")}}}
	}
	slot := lease.OfDeployment(database.Name)
	a := later("later", slot)
	// Besides its condition the pod has a lock as its claim. The pod competes for the lock once the
	// condition is met.
	a.Annotations[api.LockAnnotation] = "later"
	app.Create(s, a)
	s.Await(space.StartTimeout, "the pod waits", func() bool { return waits(s, a) })
	assert.Empty(t, s.Identity(api.LockLease("later")), "a pod that waits holds nothing")

	app.Deploy(s, database)
	started := app.AwaitRunning(s, a, space.StartTimeout)
	assert.GreaterOrEqual(t, started.Start-s.Record(database.Name)[0].Start, 5*time.Second, "the holder serves after five seconds")
	s.Await(space.Soon, "the test's watch shows that the holder serves", func() bool { return s.Lease(slot).Annotations[api.ServingAnnotation] != "" })

	kubectl.Must(s, "", "scale", "deployment/"+database.Name, "--replicas=0")
	s.Await(space.StartTimeout, "nobody serves", func() bool { return s.Identity(slot) == "" })
	before := app.AwaitRunning(s, a, space.Soon)
	kubectl.Must(s, "", "rollout", "restart", "deployment/"+a.Name)
	s.Await(space.StartTimeout, "a new pod waits", func() bool { return waits(s, a) })
	s.Never(lease.Handover, "another pod starts", func() bool {
		// The check does not ask whether the old application still runs. On a busy machine a living
		// application's time stamps may be late, so the application would seem dead.
		return slices.ContainsFunc(s.Record(a.Name), func(p record.Process) bool { return p.Pod != before.Pod })
	})
}
