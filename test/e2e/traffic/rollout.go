// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// A Deployment of three replicas rolls out when its claim is added, and again when the claim is
// removed.
//
// docs/reference/compatibility.md: kinds/deployment carried
func TestClaimAdditionAndRemovalRollOutTheDeployment(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	// Ungated processes may run beside all others. The slot is exclusive only from the end of the
	// last ungated process until the start of the next ungated process.
	ungated := func(p record.Process) bool { return p.Slot == "" }
	s.Tolerate = func(o record.Overlap) bool { return ungated(o.A) || ungated(o.B) }
	a := app.App{Name: "biller"}
	app.Create(s, a)
	kubectl.Must(s, "", "rollout", "status", "deployment/biller", kubectl.RolloutTimeout)
	s.Await(space.StartTimeout, "all three run", func() bool { return len(s.Record(a.Name).Running(space.Fresh)) == 3 })

	kubectl.Must(s, "", "annotate", "deployment/biller", api.SingletonAnnotation+"=true", api.LeaseDurationAnnotation+"="+lease.Lasting.String())
	kubectl.Must(s, "", "rollout", "status", "deployment/biller", kubectl.RolloutTimeout)
	s.Await(space.StartTimeout, "one runs, and only one", func() bool { return len(s.Record(a.Name).Running(space.Fresh)) == 1 })
	s.Await(space.StartTimeout, "the old pods are gone", func() bool { return len(s.Pods(a.Name)) == 3 })
	first := app.AwaitRunning(s, a, space.Soon)
	// The test looks for a recorded end. Late time stamps prove no end, because a living process
	// that starves writes them late, too.
	s.Never(lease.Handover, "an end of it, or another beside it", func() bool {
		return holder.Holder{Space: s, App: a}.Process(first.ID).Ended || app.After(s, a, first) != nil
	})
	holder := s.AwaitHolder(lease.OfDeployment(a.Name))
	s.Await(space.Soon, "every pod is Ready and answers with the holder's application", func() bool {
		for _, pod := range s.Pods(a.Name) {
			marked := pod.Labels[api.RoleLabel] == api.RoleHolder
			if !status.Ready(pod) || app.Ask(s, pod) != holder.Name || marked != (pod.Name == holder.Name) {
				return false
			}
		}
		return true
	})

	kubectl.Must(s, "", "annotate", "deployment/biller", api.SingletonAnnotation+"-", api.LeaseDurationAnnotation+"-")
	kubectl.Must(s, "", "rollout", "status", "deployment/biller", kubectl.RolloutTimeout)
	s.Await(space.StartTimeout, "all three run", func() bool { return len(s.Record(a.Name).Running(space.Fresh)) == 3 })
	// The rollout may end before the last old pod is deleted, so the test also waits for
	// that deletion.
	s.Await(space.StartTimeout, "no pod has a gate", func() bool {
		return !slices.ContainsFunc(s.Pods(a.Name), func(pod *corev1.Pod) bool { return pod.Labels[api.GatedLabel] != "" })
	})
}
