// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// ContainersRun reports whether all containers of a pod run.
func ContainersRun(pod *corev1.Pod) bool {
	statuses := pod.Status.ContainerStatuses
	for _, status := range statuses {
		if status.State.Running == nil {
			return false
		}
	}
	return len(statuses) > 0
}

// Condition reports whether a condition of a pod is true.
func Condition(pod *corev1.Pod, condition corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == condition {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Restarted returns the number of restarts of a pod's first container; -1 if the number is unknown.
// A restart counts only after the kubelet has also reported the end before this restart.
func Restarted(s *space.Space, pod *corev1.Pod) int32 {
	now := s.Pod(pod.Name)
	if now == nil || len(now.Status.ContainerStatuses) == 0 {
		return -1
	}
	status := now.Status.ContainerStatuses[0]
	if status.RestartCount > 0 && status.LastTerminationState.Terminated == nil {
		return status.RestartCount - 1
	}
	return status.RestartCount
}

// LastEnd returns the last end of a pod's first container, or nil if the kubelet has
// reported none.
func LastEnd(s *space.Space, pod *corev1.Pod) *corev1.ContainerStateTerminated {
	now := s.Pod(pod.Name)
	if now == nil || len(now.Status.ContainerStatuses) == 0 {
		return nil
	}
	return now.Status.ContainerStatuses[0].LastTerminationState.Terminated
}

// Complete reports whether a Job is complete.
func Complete(job *batchv1.Job) bool {
	for _, c := range job.Status.Conditions {
		if c.Type == batchv1.JobComplete {
			return c.Status == "True"
		}
	}
	return false
}

// Container returns the status of a container by its name.
func Container(status corev1.PodStatus, name string) corev1.ContainerStatus {
	i := slices.IndexFunc(status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == name })
	if i < 0 {
		return corev1.ContainerStatus{}
	}
	return status.ContainerStatuses[i]
}

// Ready reports whether a pod is Ready.
func Ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
