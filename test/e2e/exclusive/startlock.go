// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// starts is the name of the record of all starts. No two starts may overlap.
const starts = "starts"

// warm is the Lease of the start lock.
var warm = api.StartLockLease("warm")

// warming returns an application that takes two seconds to start, under the start lock.
func warming(name string, replicas int32) app.App {
	a := app.App{Name: name, Record: "$POD_NAME", Replicas: replicas, Annotations: app.Claim(api.StartLockAnnotation, "warm")}
	a.Args = []string{"-start-delay=2s", "-starts=" + starts}
	a.Edit = func(t *corev1.PodTemplateSpec) {
		t.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health/readiness", Port: intstr.FromInt32(8080)}},
			PeriodSeconds: 1,
		}
	}
	return a
}

// awaitReady waits until the application has exactly the given number of pods, all are Ready, and
// the start lock is free.
func awaitReady(s *space.Space, a app.App, replicas int) {
	s.Helper()
	s.Await(space.StartTimeout, "all pods have started", func() bool {
		pods := s.Pods(a.Name)
		ready := slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool { return !status.Condition(pod, corev1.PodReady) })
		return len(pods) == replicas && len(ready) == replicas && s.Identity(warm) == ""
	})
}

// lives awaits the living processes of all pods, and returns them by pod.
func lives(s *space.Space, a app.App) map[string]*record.Process {
	all := map[string]*record.Process{}
	for _, pod := range s.Pods(a.Name) {
		all[pod.Name] = app.AwaitRunningPod(s, pod.Name, space.Soon)
	}
	return all
}

func TestStartLockLetsPodsStartOneByOne(t *testing.T) {
	l := cluster.NeedLab(t, "it cuts a node off")
	s, a := space.New(t), warming("caches", 5)
	app.Create(s, a)
	awaitReady(s, a, 5)
	require.Len(t, s.Record(starts).Mains(), 5)
	before := lives(s, a)
	for _, pod := range s.Pods(a.Name) {
		assert.NotContains(t, pod.Labels, api.RoleLabel, "no pod holds a slot for life")
	}

	// A restart of a child needs the start lock, too. The applications of the other pods run on.
	victim := s.Pods(a.Name)[0]
	process.MustSignal(s, victim, process.Child, unix.SIGKILL)
	s.Await(space.StartTimeout, "the application has started again", func() bool { return len(s.Record(starts).Mains()) == 6 })
	awaitReady(s, a, 5)
	for name, now := range lives(s, a) {
		if name != victim.Name {
			assert.Equal(t, before[name].ID, now.ID)
		}
	}

	// The node of a starting pod is cut off. The start continues on that node, and the next pod
	// starts when the Lease has expired. A cut before the agent has the answer to its acquiring write
	// would prevent the start, so the application must run first.
	kubectl.Must(s, "", "rollout", "restart", "deployment/"+a.Name)
	var starter *corev1.Pod
	s.Await(space.StartTimeout, "a new pod holds the start lock", func() bool { starter = s.Holder(warm); return starter != nil })
	started := app.AwaitRunningPod(s, starter.Name, space.StartTimeout)
	heal := fault.Node(t, starter.Spec.NodeName, l.Cut, l.Heal)
	s.Await(lease.Short+space.Soon, "another pod starts", func() bool {
		holder := s.Holder(warm)
		return holder != nil && holder.Name != starter.Name
	})
	assert.Equal(t, started.ID, app.AwaitRunningPod(s, starter.Name, space.Soon).ID, "the pod that was cut off runs its application")
	heal()
	awaitReady(s, a, 5)
}
