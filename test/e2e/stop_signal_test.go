// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
)

// stoppedBy gives the application an image, and a stop signal of the pod's own.
func stoppedBy(image string, own corev1.Signal) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		// Without it no pod may name a signal.
		t.Spec.OS = &corev1.PodOS{Name: corev1.Linux}
		c := &t.Spec.Containers[0]
		c.Image = image
		if own != "" {
			c.Lifecycle = &corev1.Lifecycle{StopSignal: &own}
		}
	}
}

// The application is told to stop by the signal that it was built for, once and by
// no other: from the kubelet as without us, and from us when its slot is yielded.
//
// compat: lifecycle/stop-signal lifecycle/image-stop-signal carried
func TestTheStopSignalIsTheApplicationsOwn(t *testing.T) {
	needLab(t, "it needs a feature gate, and reads the signals' notes")
	t.Parallel()
	s := newSpace(t)
	for name, tt := range map[string]struct {
		image string
		own   corev1.Signal
		want  string
	}{
		"of-the-pod":   {image, corev1.SIGUSR1, "SIGUSR1"},
		"of-the-image": {quitImage, "", "SIGQUIT"},
		// The number of one that has no name.
		"of-both": {quitImage, corev1.SIGRTMAXMINUS3, "61"},
	} {
		gated := lasting(name)
		gated.grace = patient
		// The delay lets another signal come after the first.
		gated.replicas, gated.edit, gated.args = 2, stoppedBy(tt.image, tt.own), []string{"-signals", "-stop-delay=1s"}
		plain := app{name: name + "-plain", replicas: 1, edit: gated.edit, args: gated.args}
		s.create(plain)
		s.deploy(gated)
		s.awaitRunning(plain, startTimeout)
		var asItIs *corev1.Pod
		s.await(soon, "its pod", func() bool {
			if pods := s.all(plain.name); len(pods) == 1 {
				asItIs = pods[0]
			}
			return asItIs != nil
		})
		assert.Equal(t, tt.own, stopSignal(asItIs), "the API server has kept it")
		s.undeployed(asItIs)
		assert.Equal(t, []string{tt.want}, s.notes(asItIs), asItIs.Name)

		first := s.awaitHolder(deploymentSlot(name))
		second, asked := s.yields(gated)
		assert.Equal(t, tt.own, stopSignal(second))
		told := slices.Repeat([]string{tt.want}, asked)
		assert.Equal(t, told, s.notes(first), "%s yields", first.Name)
		// It stands by now, and takes the signal for its own end.
		assert.Less(t, s.gone(first), atOnce, "a standby ends at once")
		assert.Equal(t, told, s.notes(first), "%s is gone", first.Name)
		s.awaitRunning(gated, soon)
		s.undeployed(second)
		assert.Equal(t, []string{tt.want}, s.notes(second), second.Name)
	}
}

// stopSignal is what a pod asks to be stopped by; empty: nothing of its own.
func stopSignal(pod *corev1.Pod) corev1.Signal {
	if l := pod.Spec.Containers[0].Lifecycle; l != nil && l.StopSignal != nil {
		return *l.StopSignal
	}
	return ""
}
