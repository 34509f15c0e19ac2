// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// evict evicts every pod of the application on the holder's node, as kubectl drain does.
// The node stays schedulable, because other tests use the node, too.
func evict(h holder.Holder) {
	h.Helper()
	for _, pod := range h.Pods(h.App.Name) {
		if pod.Spec.NodeName == h.Victim.Spec.NodeName {
			require.NoError(h, h.Client.PolicyV1().Evictions(h.Namespace).Evict(h.Context(), &policyv1.Eviction{
				ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: h.Namespace},
			}))
		}
	}
}

// The standby takes over when the holder is evicted. The pod that replaces the evicted
// pod only stands by. A later scale-down deletes that standby, not the holder.
func TestEvictionOfTheHolderCausesOneHandover(t *testing.T) {
	t.Parallel()
	a := app.Lasting("drained")
	a.Replicas = 2
	h := holder.Deploy(t, a, "it needs the record")
	finished := func() { kubectl.Must(h.Space, "", "rollout", "status", "deployment/drained", kubectl.RolloutTimeout) }
	finished()
	evict(h)
	var next *record.Process
	h.Await(space.StartTimeout, "the standby runs the application", func() bool { next = app.After(h.Space, a, h.Before); return next != nil })
	app.VacantFor(h.Space, a, h.Before, lease.Released, "by a release")
	h.Await(space.StartTimeout, "the old pod is gone", func() bool { return h.Pod(h.Victim.Name) == nil })
	finished()
	h.Never(lease.Handover, "a second handover", func() bool { return app.After(h.Space, a, next) != nil })

	app.Scale(h.Space, a, 1)
	h.Await(space.StartTimeout, "one pod is left", func() bool { return len(h.Pods(a.Name)) == 1 })
	assert.Equal(t, next.Pod, h.Pods(a.Name)[0].Name, "the holder costs most to delete")
	assert.Equal(t, next.ID, app.AwaitRunning(h.Space, a, space.Soon).ID)
}

// evictionTimeout bounds the time in which the kubelet measures a volume and evicts its pod. The
// kubelet measures each volume once a minute. Every ten seconds the kubelet compares the latest
// measurement with the volume's limit.
const evictionTimeout = 3 * time.Minute

// A hard eviction is a deletion with a grace of one second. The kubelet kills the application after
// two seconds, which is the kubelet's minimum, and kills the agent a second later. In that second the
// agent must release the slot, because the slot would otherwise have to expire. The test runs alone,
// because on an overloaded machine the release would take longer than that second.
//
// docs/reference/compatibility.md: lifecycle/grace-of-deletion lifecycle/ignores-term carried
func TestHolderDeletedWithMinimalGraceReleasesTheSlot(t *testing.T) {
	for name, args := range map[string][]string{"obeys": nil, "ignores": {"-ignore-term"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := app.Lasting("hard-" + name)
			a.Args, a.Grace = args, patient
			h := holder.Deploy(t, a, "it needs the record")
			at := record.Now()
			kubectl.Must(h.Space, "", "delete", "pod", h.Victim.Name, "--grace-period=1", "--wait=false")
			h.Await(space.StartTimeout, "another one runs", func() bool { return app.After(h.Space, a, h.Before) != nil })
			vacancy, old := app.VacancyAfter(h.Space, a, h.Before), h.Process(h.Before.ID)
			t.Logf("the application ended after %v, and the next one started %v later", old.Last-at, vacancy)
			assert.Less(t, old.Last, at+atOnce, "the pod's own grace is longer")
			assert.Less(t, vacancy, lease.Released, "by a release")
			assert.GreaterOrEqual(t, vacancy, time.Duration(0))
		})
	}
}

// The kubelet evicts a pod whose volume outgrows its limit. The kubelet then stops the pod with a
// grace of one second, but does not delete the Pod object. The volume's limit is 6 KiB. The volume
// takes 4 KiB while empty, and 8 KiB with a file.
func TestHolderEvictedByTheKubeletReleasesTheSlot(t *testing.T) {
	t.Parallel()
	a := app.Lasting("outgrown")
	a.Replicas, a.Grace = 2, patient
	a.Edit = func(p *corev1.PodTemplateSpec) {
		limit := resource.MustParse("6Ki")
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{
			EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit},
		}})
		c := &p.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "scratch", MountPath: "/scratch"})
	}
	h := holder.Deploy(t, a, "it needs the record")
	kubectl.Must(h.Space, "", "exec", h.Victim.Name, "-c", "app", "--", "/app", "-record=/scratch", "-note=outgrown")
	h.Await(evictionTimeout, "another pod runs the application", func() bool { return app.After(h.Space, a, h.Before) != nil })
	app.VacantFor(h.Space, a, h.Before, lease.Released, "by a release")
	h.Await(space.StartTimeout, "the pod is evicted", func() bool {
		pod := h.Pod(h.Victim.Name)
		return pod != nil && pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == "Evicted"
	})
	assert.Nil(t, h.Pod(h.Victim.Name).DeletionTimestamp, "nobody has deleted the pod")
}
