// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/workload"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// TestRolloutWithoutSurgeStopsApplicationAtMostTwice rolls a good version out with Recreate, and
// with other strategies that delete an old pod before they make a new one.
//
// docs/reference/compatibility.md: kinds/deployment-recreate kinds/stateful-set kinds/stateful-set-parallel kinds/daemon-set carried
func TestRolloutWithoutSurgeStopsApplicationAtMostTwice(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	for name, replicas := range map[string]int32{
		"deployment-3-recreate": 2, "deployment-3-no-surge": 2, "statefulset-3": 2, "statefulset-3-parallel": 2, "daemonset": 3,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := space.New(t)
			w := workload.Start(s, workload.Named(s, name, replicas), first, grace)
			began := record.Now()
			w.Apply(good)
			require.NoError(t, w.Finishes(goes))
			w.AwaitVersion(good)
			app.AwaitRunning(s, w.App, space.Soon)
			stops, vacant := w.Stops(began)
			t.Logf("%d stops, the longest for %v", stops, vacant)
			assert.GreaterOrEqual(t, stops, 1)
			assert.LessOrEqual(t, stops, w.Kind.Stops)
			w.Await(serves, "the good version runs", func() bool { return w.Runs() == good.Name })
		})
	}
}

// TestTwoRolloutsReplaceAClaimWithoutOverlap claims both slots in the first rollout, and only the new
// slot in the second rollout. The second rollout waits until a pod holds the new slot, because the first
// rollout is complete before its last old pod has stopped. The harness fails the test if two processes
// of the record overlap.
func TestTwoRolloutsReplaceAClaimWithoutOverlap(t *testing.T) {
	t.Parallel()
	a := app.Lasting("moves")
	h := holder.Deploy(t, a, "it needs the record")
	annotate := func(change ...string) string {
		t.Helper()
		return kubectl.Must(h.Space, "", append([]string{"annotate", "deployment/" + a.Name}, change...)...)
	}
	roll := func(change string) {
		t.Helper()
		assert.NotContains(t, annotate(change), "Warning")
		kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+a.Name, kubectl.RolloutTimeout)
	}
	warning := "Warning: " + string(reason.ClaimChanged) + ": "
	assert.Contains(t, annotate("--dry-run=server", api.SingletonAnnotation+"-", api.LeaseDurationAnnotation+"-"), warning)
	roll(api.LockAnnotation + "=books")
	h.AwaitHolder("lock.books")
	roll(api.SingletonAnnotation + "-")
	h.Await(space.StartTimeout, "every pod claims only the new slot", func() bool {
		return !slices.ContainsFunc(h.Pods(a.Name), func(pod *corev1.Pod) bool { return pod.Annotations[api.SlotsAnnotation] != "lock.books" })
	})
	app.AwaitRunning(h.Space, a, space.Soon)
	assert.Contains(t, annotate("--dry-run=server", "--overwrite", api.LockAnnotation+"=other"), warning)
}

// scalings is the number of times that the test scales to zero. Once is not enough,
// because a standby with a bug would start its application in a deleted pod only now and
// then.
const scalings = 3

func TestStandbyNeverStartsApplicationDuringScaleDown(t *testing.T) {
	t.Parallel()
	a := app.Lasting("scaled")
	h := holder.Deploy(t, a, "it needs the record")
	ready := func() {
		t.Helper()
		kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+a.Name, kubectl.RolloutTimeout)
	}
	pods := func(count int) {
		t.Helper()
		h.Await(space.StartTimeout, "the other pods are gone", func() bool { return len(h.Pods(a.Name)) == count })
	}
	ready()
	app.Scale(h.Space, a, 1)
	pods(1)
	app.Scale(h.Space, a, 3)
	ready()
	assert.Len(t, h.Record(a.Name), 1, "the holder stays")
	assert.Equal(t, h.Before.ID, app.AwaitRunning(h.Space, a, space.Soon).ID)
	for i := range scalings {
		app.Scale(h.Space, a, 0)
		pods(0)
		assert.Len(t, h.Record(a.Name), i+1, "a standby has started its application")
		app.Scale(h.Space, a, 3)
		ready()
		app.AwaitRunning(h.Space, a, space.Soon)
	}
}
