// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// docs/reference/compatibility.md: pod/native-sidecars pod/ungated carried
func TestNativeSidecarOfUserStartsBeforeTheAgent(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("accompanied")
	a.Replicas = 2
	always := corev1.ContainerRestartPolicyAlways
	a.Edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.InitContainers = []corev1.Container{{Name: "proxy", Image: cluster.Image, Args: []string{"-listen=:8081"}, RestartPolicy: &always}}
	}
	app.Deploy(s, a)
	for _, pod := range s.Pods(a.Name) {
		own := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == "proxy" })
		agent := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.AgentContainer })
		assert.Less(t, own, agent, "it is started before the agent, and stopped after it")
		assert.Empty(t, pod.Spec.InitContainers[own].Command, "it is not gated")
		for _, status := range pod.Status.InitContainerStatuses {
			if status.Name == "proxy" {
				assert.NotNil(t, status.State.Running, pod.Name)
			}
		}
	}
	app.HandsOver(s, a)
}

// docs/reference/compatibility.md: pod/cp carried
func TestKubectlCopiesFilesToHolderAndStandby(t *testing.T) {
	cluster.NeedLab(t, "it pushes an image")
	t.Parallel()
	s := space.New(t)
	// kubectl cp needs a tar in the image, so the image is Debian.
	images := layered(s, map[string]v1.Config{"entry": {Entrypoint: []string{"app"}}})
	a := app.Lasting("copied")
	a.Replicas = 2
	a.Edit = func(template *corev1.PodTemplateSpec) { template.Spec.Containers[0].Image = images["entry"] }
	app.Deploy(s, a)
	there, back := filepath.Join(t.TempDir(), "there"), filepath.Join(t.TempDir(), "back")
	require.NoError(t, os.WriteFile(there, []byte("carried"), 0o600))
	for _, pod := range s.Pods(a.Name) {
		// kubectl cp copies through a stream of kubectl exec. On a busy machine such a stream
		// may end early. So the test repeats both copies.
		s.Await(kubectl.Timeout, "a file there and back: "+pod.Name, func() bool {
			_ = os.Remove(back)
			for _, way := range [][]string{{there, pod.Name + ":/tmp/there"}, {pod.Name + ":/tmp/there", back}} {
				if out, err := kubectl.Run(s, "", "cp", way[0], way[1]); err != nil {
					t.Logf("kubectl cp %v: %v: %s", way, err, out)
					return false
				}
			}
			content, err := os.ReadFile(back)
			return err == nil && string(content) == "carried"
		})
	}
	assert.Zero(t, app.Restarts(s, a))
}
