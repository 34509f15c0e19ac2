// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
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
func TestAGatedInitContainerRunsUnderTheSlotOfTheApplication(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	a := singleton("migrated")
	a.replicas = 2
	a.annotations[api.ContainersAnnotation] = "migrate,app"
	a.edit = func(template *corev1.PodTemplateSpec) {
		migrate := *template.Spec.Containers[0].DeepCopy()
		migrate.Name, migrate.Ports = "migrate", nil
		migrate.Args = append(migrate.Args, "-listen=", "-run-for=2s")
		template.Spec.InitContainers = []corev1.Container{migrate}
	}
	_, err := s.client.AppsV1().Deployments(s.name).Create(t.Context(), s.deployment(a), metav1.CreateOptions{})
	require.NoError(t, err)
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
