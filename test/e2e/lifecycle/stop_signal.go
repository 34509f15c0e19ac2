// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// stoppedBy returns an edit that sets the image. If the argument "own" is not empty, the edit also
// makes this argument the stop signal in the pod's spec.
func stoppedBy(image string, own corev1.Signal) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		// A pod that names a stop signal must also name its OS.
		t.Spec.OS = &corev1.PodOS{Name: corev1.Linux}
		c := &t.Spec.Containers[0]
		c.Image = image
		if own != "" {
			c.Lifecycle = &corev1.Lifecycle{StopSignal: &own}
		}
	}
}

// The application gets its own stop signal, once, and no other signal. At a deletion the kubelet
// sends this signal, as without the gate. At a yield the shim sends this signal.
//
// docs/reference/compatibility.md: lifecycle/stop-signal lifecycle/image-stop-signal carried
func TestApplicationGetsOnlyTheDeclaredStopSignal(t *testing.T) {
	cluster.NeedLab(t, "it needs a feature gate, and reads the signals' notes")
	t.Parallel()
	s := space.New(t)
	for name, tt := range map[string]struct {
		image string
		own   corev1.Signal
		want  string
	}{
		"of-the-pod":   {cluster.Image, corev1.SIGUSR1, "SIGUSR1"},
		"of-the-image": {cluster.QuitImage, "", "SIGQUIT"},
		// If a signal has no name, the application notes the signal's number.
		"of-both": {cluster.QuitImage, corev1.SIGRTMAXMINUS3, "61"},
	} {
		gated := app.Lasting(name)
		gated.Grace = patient
		// The application ends a second after its stop signal. If the shim wrongly sends another
		// signal in this second, the application notes that signal, too.
		gated.Replicas, gated.Edit, gated.Args = 2, stoppedBy(tt.image, tt.own), []string{"-signals", "-stop-delay=1s"}
		plain := app.App{Name: name + "-plain", Replicas: 1, Edit: gated.Edit, Args: gated.Args}
		app.Create(s, plain)
		app.Deploy(s, gated)
		app.AwaitRunning(s, plain, space.StartTimeout)
		var asItIs *corev1.Pod
		s.Await(space.Soon, "its pod", func() bool {
			if pods := s.Pods(plain.Name); len(pods) == 1 {
				asItIs = pods[0]
			}
			return asItIs != nil
		})
		assert.Equal(t, tt.own, stopSignal(asItIs), "the API server has kept it")
		undeployed(s, asItIs)
		assert.Equal(t, []string{tt.want}, notes(s, asItIs), asItIs.Name)

		first := s.AwaitHolder(lease.OfDeployment(name))
		second, asked := app.Yields(s, gated)
		assert.Equal(t, tt.own, stopSignal(second))
		told := slices.Repeat([]string{tt.want}, asked)
		assert.Equal(t, told, notes(s, first), "%s yields", first.Name)
		// The first holder is a standby now, and its shim ends at the stop signal.
		assert.Less(t, gone(s, first), atOnce, "a standby ends at once")
		assert.Equal(t, told, notes(s, first), "%s is gone", first.Name)
		app.AwaitRunning(s, gated, space.Soon)
		undeployed(s, second)
		assert.Equal(t, []string{tt.want}, notes(s, second), second.Name)
	}
}

// stopSignal returns the stop signal in a pod's spec; empty means none.
func stopSignal(pod *corev1.Pod) corev1.Signal {
	if l := pod.Spec.Containers[0].Lifecycle; l != nil && l.StopSignal != nil {
		return *l.StopSignal
	}
	return ""
}
