// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// work is the name of the once claim, and also the name of the record.
const work = "schema"

// migrated returns an application of four replicas, whose init container does the work of the
// key. Only the init container has a record.
func migrated(key string) app.App {
	a := app.App{Name: "shop", Record: work, Replicas: 4, Annotations: app.Claim(api.OnceAnnotation, work+"="+key)}
	a.Annotations[api.ContainersAnnotation], a.Annotations[api.LeaseDurationAnnotation] = "migrate", lease.Lasting.String()
	a.Edit = func(template *corev1.PodTemplateSpec) {
		main := &template.Spec.Containers[0]
		migrate := *main.DeepCopy()
		migrate.Name, migrate.Ports = "migrate", nil
		migrate.Args = append(migrate.Args, "-listen=", "-run-for=10s")
		main.Args = slices.DeleteFunc(main.Args, func(arg string) bool { return strings.HasPrefix(arg, "-record=") })
		template.Spec.InitContainers = []corev1.Container{migrate}
	}
	return a
}

// successes returns the processes that did the work and succeeded without a stop signal.
func successes(s *space.Space) (all record.Record) {
	for _, p := range s.Record(work) {
		if p.Ended && p.Code == 0 && p.Signalled == 0 {
			all = append(all, p)
		}
	}
	return all
}

// done returns the done keys of the once claim.
func done(s *space.Space) api.Done {
	if l := s.Lease(api.OnceLease(work)); l != nil {
		return api.Done(l.Annotations[api.DoneAnnotation])
	}
	return ""
}

// awaitReady waits until n pods of the application are Ready.
func awaitReady(s *space.Space, a app.App, n int) {
	s.Helper()
	s.Await(space.StartTimeout, "the application runs in all pods", func() bool {
		ready := 0
		for _, pod := range s.Pods(a.Name) {
			if pod.DeletionTimestamp == nil && status.Ready(pod) {
				ready++
			}
		}
		return ready == n
	})
}

// docs/reference/compatibility.md: lifecycle/once pod/init carried
func TestInitContainerCompletesWorkOfAKeyOnce(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	a := migrated("1")
	app.Create(s, a)
	first := app.AwaitRunning(s, a, space.StartTimeout)
	s.Await(space.StartTimeout, "four pods wait for the work", func() bool { return len(s.Pods(a.Name)) == 4 })
	for _, pod := range s.Pods(a.Name) {
		assert.False(t, status.Ready(pod), "no application starts before the work is done")
	}

	// After SIGTERM the application ends with exit code 0, although its work is unfinished.
	app.DeletePod(s, s.Pod(first.Pod))
	s.Await(space.StartTimeout, "another pod repeats the work", func() bool {
		now := s.Running(work)
		return now != nil && now.Pod != first.Pod
	})
	assert.Empty(t, done(s), "the interrupted work is not done")
	awaitReady(s, a, 4)
	assert.Len(t, successes(s), 1)
	assert.Equal(t, api.Done("1"), done(s))
	s.Await(space.Soon, "nobody holds the slot", func() bool { return s.Identity(api.OnceLease(work)) == "" })

	app.Scale(s, a, 6)
	awaitReady(s, a, 6)
	assert.Len(t, successes(s), 1, "later pods skip the work")
	out, err := kubectl.Run(s, "", "delete", "lease", api.OnceLease(work))
	require.Error(t, err)
	assert.Contains(t, out, "WorkDone: "+api.OnceLease(work)+" has the done keys 1")

	kubectl.Must(s, "", "annotate", "--overwrite", "deployment", a.Name, api.OnceAnnotation+"="+work+"=2")
	kubectl.Must(s, "", "rollout", "status", "deployment/"+a.Name, kubectl.RolloutTimeout)
	assert.Len(t, successes(s), 2)
	assert.Equal(t, api.Done("1,2"), done(s))
}
