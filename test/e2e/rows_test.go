// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// of are the processes that a record knows of in one pod.
func (s *space) of(name, pod string) (found []record.Process) {
	for _, p := range s.record(name) {
		if p.Pod == pod {
			found = append(found, p)
		}
	}
	return found
}

// An init container that prepares for the application, as a migration does.
//
// compat: pod/init-gated carried
func TestAGatedInitContainerRunsUnderTheSlotOfTheApplication(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	a := lasting("migrated")
	a.replicas = 2
	a.annotations[api.ContainersAnnotation] = "migrate,app"
	a.edit = func(template *corev1.PodTemplateSpec) {
		migrate := *template.Spec.Containers[0].DeepCopy()
		migrate.Name, migrate.Ports = "migrate", nil
		migrate.Args = append(migrate.Args, "-listen=", "-run-for=2s")
		template.Spec.InitContainers = []corev1.Container{migrate}
	}
	s.create(a)
	serving := func() (pod string, processes []record.Process) {
		s.Helper()
		s.await(startTimeout, "the application runs after its init container", func() bool {
			now := s.running(a.recordName())
			if now == nil {
				return false
			}
			pod, processes = now.Pod, s.of(a.recordName(), now.Pod)
			return len(processes) == 2
		})
		return pod, processes
	}
	first, processes := serving()
	assert.True(t, processes[0].Ended, "the init container came to its end")
	assert.Equal(t, processes[0].Token, processes[1].Token, "both ran in one hold")

	s.await(startTimeout, "a standby waits before its init container", func() bool {
		for _, pod := range s.all(a.name) {
			for _, status := range pod.Status.InitContainerStatuses {
				if pod.Name != first && status.Name == "migrate" && status.State.Running != nil {
					return len(s.of(a.recordName(), pod.Name)) == 0
				}
			}
		}
		return false
	})
	s.deletePod(s.pod(first))
	s.await(startTimeout, "the standby is another", func() bool {
		now := s.running(a.recordName())
		return now != nil && now.Pod != first
	})
	_, after := serving()
	assert.Equal(t, after[0].Token, after[1].Token)
	assert.NotEqual(t, processes[0].Token, after[0].Token)
}

// On its node's network a standby forwards the same port of another node, and
// no port of ours is taken: not the one that the agent has elsewhere.
//
// compat: pod/host-network carried
func TestOnTheNodesNetworkAStandbyForwardsToTheHoldersNode(t *testing.T) {
	needLab(t, "it needs two nodes of its own")
	t.Parallel()
	s := newSpace(t)
	a := lasting("onhost")
	a.replicas = 2
	a.edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.HostNetwork = true
		template.Spec.Containers[0].Ports = append(template.Spec.Containers[0].Ports,
			corev1.ContainerPort{Name: "agents", ContainerPort: api.AgentPort})
	}
	s.deploy(a)
	answering := func(holder string) func() bool {
		return func() bool {
			for _, pod := range s.all(a.name) {
				if !ready(pod) || s.ask(pod) != holder || !slices.Contains(hostIPs(pod), pod.Status.PodIP) {
					return false
				}
			}
			return len(s.all(a.name)) == 2
		}
	}
	first := s.awaitHolder(deploymentSlot(a.name))
	s.await(startTimeout, "both are Ready, and the holder answers on both nodes", answering(first.Name))
	s.deletePod(first)
	s.await(startTimeout, "the other one holds", func() bool {
		now := s.running(a.recordName())
		return now != nil && now.Pod != first.Name
	})
	s.await(startTimeout, "the new holder answers on both nodes", func() bool {
		now := s.running(a.recordName())
		return now != nil && answering(now.Pod)()
	})
}

func hostIPs(pod *corev1.Pod) (all []string) {
	for _, address := range pod.Status.HostIPs {
		all = append(all, address.IP)
	}
	return all
}

// compat: lifecycle/restart-rules lifecycle/restart-never carried
func TestAContainersRestartRulesSeeTheApplicationsExitCodes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	run := func(name string, code int) *corev1.Pod {
		pod := s.bare(name, map[string]string{api.SingletonAnnotation: "true"})
		never := corev1.ContainerRestartPolicyNever
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		c := &pod.Spec.Containers[0]
		c.Args = append(c.Args, "-run-for=1s", fmt.Sprintf("-exit-code=%d", code))
		c.RestartPolicy = &never
		c.RestartPolicyRules = []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestart,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
		}}
		_, err := s.client.CoreV1().Pods(s.name).Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
		return pod
	}
	run("again", 42)
	run("over", 7)
	s.await(startTimeout, "the one with the rule's code is restarted", func() bool {
		pod := s.pod("again") // the watch may not have seen it yet
		if pod == nil || s.restarted(pod) < 1 {
			return false
		}
		last := s.lastEnd(pod)
		return last != nil && last.ExitCode == 42
	})
	s.await(startTimeout, "the other one is over", func() bool {
		pod := s.pod("over")
		if pod == nil || pod.Status.Phase != corev1.PodFailed || len(pod.Status.ContainerStatuses) != 1 {
			return false
		}
		status := pod.Status.ContainerStatuses[0]
		return status.RestartCount == 0 && status.State.Terminated != nil && status.State.Terminated.ExitCode == 7
	})
}

// The error, the warning, the Event on the owner, and the metric.
func TestAReasonHasOneNameWhereverPeopleLook(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	const reason = "SharedProcesses"
	a := singleton("named")
	share := true
	a.edit = func(template *corev1.PodTemplateSpec) { template.Spec.ShareProcessNamespace = &share }
	pod := s.bare("named", claims)
	pod.Spec.ShareProcessNamespace = &share
	s.refused(pod, reason+": ")
	assert.Contains(t, s.mustKubectl(s.manifest(s.deployment(a)), "apply", "-f", "-"), "Warning: "+reason+": ")
	s.await(startTimeout, "an Event on the Deployment", func() bool {
		event := s.event("Deployment", a.name, reason)
		return event != nil && strings.Contains(event.Message, reason+": ")
	})
	counted := false
	for _, p := range webhookPods(t) {
		text, err := cluster.client.CoreV1().Pods(systemNamespace).ProxyGet("http", p.Name, "8080", "/metrics", nil).DoRaw(t.Context())
		require.NoError(t, err)
		counted = counted || strings.Contains(string(text), `metaparticle_admissions_total{reason="`+reason+`",resource="pods",result="denied"}`)
	}
	assert.True(t, counted, "in the metric")
}
