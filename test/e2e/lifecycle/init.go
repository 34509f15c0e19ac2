// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// of returns the processes of one pod in a record.
func of(s *space.Space, name, pod string) (found []record.Process) {
	for _, p := range s.Record(name) {
		if p.Pod == pod {
			found = append(found, p)
		}
	}
	return found
}

// The init container prepares the application's data, as a migration does.
//
// docs/reference/compatibility.md: pod/init-gated carried
func TestGatedInitContainerAndApplicationShareOneHold(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("migrated")
	a.Replicas = 2
	a.Annotations[api.ContainersAnnotation] = "migrate,app"
	a.Edit = func(template *corev1.PodTemplateSpec) {
		migrate := *template.Spec.Containers[0].DeepCopy()
		migrate.Name, migrate.Ports = "migrate", nil
		migrate.Args = append(migrate.Args, "-listen=", "-run-for=2s")
		template.Spec.InitContainers = []corev1.Container{migrate}
	}
	app.Create(s, a)
	serving := func() (pod string, processes []record.Process) {
		s.Helper()
		s.Await(space.StartTimeout, "the application runs after its init container", func() bool {
			now := s.Running(a.RecordName())
			if now == nil {
				return false
			}
			pod, processes = now.Pod, of(s, a.RecordName(), now.Pod)
			return len(processes) == 2
		})
		return pod, processes
	}
	first, processes := serving()
	assert.True(t, processes[0].Ended, "the init container came to its end")
	assert.Equal(t, processes[0].Token, processes[1].Token, "both ran in one hold")

	s.Await(space.StartTimeout, "a standby waits before its init container", func() bool {
		for _, pod := range s.Pods(a.Name) {
			for _, status := range pod.Status.InitContainerStatuses {
				if pod.Name != first && status.Name == "migrate" && status.State.Running != nil {
					return len(of(s, a.RecordName(), pod.Name)) == 0
				}
			}
		}
		return false
	})
	app.DeletePod(s, s.Pod(first))
	s.Await(space.StartTimeout, "the standby is another", func() bool {
		now := s.Running(a.RecordName())
		return now != nil && now.Pod != first
	})
	_, after := serving()
	assert.Equal(t, after[0].Token, after[1].Token)
	assert.NotEqual(t, processes[0].Token, after[0].Token)
}

// docs/reference/compatibility.md: lifecycle/restart-rules lifecycle/restart-never carried
func TestRestartRulesApplyToTheApplicationsExitCodes(t *testing.T) {
	cluster.NeedFeature(t, cluster.ContainerRestartRules)
	t.Parallel()
	s := space.New(t)
	run := func(name string, code int) {
		pod := app.Bare(s, name, map[string]string{api.SingletonAnnotation: "true"})
		never := corev1.ContainerRestartPolicyNever
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		c := &pod.Spec.Containers[0]
		c.Args = append(c.Args, "-run-for=1s", fmt.Sprintf("-exit-code=%d", code))
		c.RestartPolicy = &never
		c.RestartPolicyRules = []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestart,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
		}}
		_, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	run("again", 42)
	run("over", 7)
	s.Await(space.StartTimeout, "the one with the rule's code is restarted", func() bool {
		pod := s.Pod("again") // the watch may not have seen the pod yet
		if pod == nil || status.Restarted(s, pod) < 1 {
			return false
		}
		last := status.LastEnd(s, pod)
		return last != nil && last.ExitCode == 42
	})
	s.Await(space.StartTimeout, "the other one is over", func() bool {
		pod := s.Pod("over")
		if pod == nil || pod.Status.Phase != corev1.PodFailed || len(pod.Status.ContainerStatuses) != 1 {
			return false
		}
		status := pod.Status.ContainerStatuses[0]
		return status.RestartCount == 0 && status.State.Terminated != nil && status.State.Terminated.ExitCode == 7
	})
}
