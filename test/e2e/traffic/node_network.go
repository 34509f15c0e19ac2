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
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// On the host network a standby listens on its node's ports, and forwards to the same
// ports of the holder's node. The agent opens no port of its own there, so the
// application may declare even the agent's usual port.
//
// docs/reference/compatibility.md: pod/host-network carried
func TestStandbyOnHostNetworkForwardsToTheHolder(t *testing.T) {
	cluster.NeedLab(t, "it needs two nodes of its own")
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("onhost")
	a.Replicas = 2
	a.Edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.HostNetwork = true
		template.Spec.Containers[0].Ports = append(template.Spec.Containers[0].Ports,
			corev1.ContainerPort{Name: "agents", ContainerPort: api.AgentPort})
	}
	app.Deploy(s, a)
	answering := func(holder string) func() bool {
		return func() bool {
			for _, pod := range s.Pods(a.Name) {
				if !status.Ready(pod) || app.Ask(s, pod) != holder || !slices.Contains(hostIPs(pod), pod.Status.PodIP) {
					return false
				}
			}
			return len(s.Pods(a.Name)) == 2
		}
	}
	first := s.AwaitHolder(lease.OfDeployment(a.Name))
	s.Await(space.StartTimeout, "both are Ready, and the holder answers on both nodes", answering(first.Name))
	app.DeletePod(s, first)
	s.Await(space.StartTimeout, "the other one holds", func() bool {
		now := s.Running(a.RecordName())
		return now != nil && now.Pod != first.Name
	})
	s.Await(space.StartTimeout, "the new holder answers on both nodes", func() bool {
		now := s.Running(a.RecordName())
		return now != nil && answering(now.Pod)()
	})
}

// hostIPs returns the addresses of a pod's node.
func hostIPs(pod *corev1.Pod) (all []string) {
	for _, address := range pod.Status.HostIPs {
		all = append(all, address.IP)
	}
	return all
}
