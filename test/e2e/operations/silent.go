// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// A NetworkPolicy closes the egress of a pod, so the pod's agent never reads its Lease. Everybody who looks is told.
func TestPodsWithoutEgressAreNamedToEverybody(t *testing.T) {
	l := cluster.NeedLab(t, "it needs a node whose pods reach no API server")
	s := space.New(t)
	nodes := l.Nodes()
	node := nodes[len(nodes)-1]
	opened := fault.Node(t, node, l.ClosePods, l.OpenPods)
	a := app.Singleton("closed")
	a.Replicas = 1
	a.Edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	}
	app.Create(s, a)
	s.Await(space.StartTimeout, "the containers run", func() bool {
		pods := s.Pods(a.Name)
		return len(pods) == 1 && status.ContainersRun(pods[0])
	})
	pod := s.Pods(a.Name)[0]
	s.Await(space.StartTimeout, "the application's log says it", func() bool {
		log, err := kubectl.Run(s, "", "logs", pod.Name, "-c", "app")
		return err == nil && strings.Contains(log, "the agent has read no Lease for 20 s")
	})
	s.Await(space.StartTimeout, "an Event on the pod", func() bool { return s.Event("Pod", pod.Name, "AgentSilent") != nil })
	p := newPlugin(s)
	assert.Contains(t, p.run(1, "explain", "deployment/"+a.Name), "egress")
	assert.Contains(t, p.run(1, "check"), s.Namespace+"/"+pod.Name)
	opened()
	app.AwaitRunning(s, a, space.StartTimeout)
}
