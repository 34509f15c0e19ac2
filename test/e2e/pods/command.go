// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// facts is what test/app prints about its own process with the flag -facts.
type facts struct {
	Args      []string
	Directory string
	Env       []string
	Status    []string
	Limits    []string
	Root      string
	Volume    int
	Input     string
}

// likened runs a pod to its end twice, plain and as a singleton, and returns the facts of
// each container by its name.
func likened(s *space.Space, pod *corev1.Pod) (plain, gated map[string]facts) {
	s.Helper()
	var told [2]map[string]facts
	for i, annotations := range []map[string]string{nil, app.Lasting(pod.Name).Annotations} {
		twin := pod.DeepCopy()
		twin.Name, twin.Annotations = []string{"plain", "gated"}[i], annotations
		// Without a common host name, each pod's own name would be in its environment.
		twin.Spec.Hostname = "twin"
		twin.Spec.RestartPolicy = corev1.RestartPolicyNever
		// A container inherits ignored signals from its node's daemons, so both pods share a
		// node.
		twin.Spec.NodeName = cluster.Lab.Nodes()[0]
		_, err := s.Client.CoreV1().Pods(s.Namespace).Create(s.Context(), twin, metav1.CreateOptions{})
		require.NoError(s, err)
	}
	for i, name := range []string{"plain", "gated"} {
		s.Await(space.StartTimeout, name+" has come to its end", func() bool {
			now := s.Pod(name)
			return now != nil && now.Status.Phase == corev1.PodSucceeded
		})
		told[i] = map[string]facts{}
		for _, c := range pod.Spec.Containers {
			var f facts
			var text string
			var err error
			s.Within(space.Soon, func() bool { // the log of a container that has just ended may be incomplete
				text = kubectl.Must(s, "", "logs", name, "-c", c.Name)
				lines := strings.Split(strings.TrimSpace(text), "\n")
				err = json.Unmarshal([]byte(lines[len(lines)-1]), &f)
				return err == nil
			})
			require.NoError(s, err, text)
			told[i][c.Name] = f
		}
	}
	return told[0], told[1]
}

// withoutOurs removes the environment variables of the grant from env. withoutOurs fails the
// test if one of these variables is missing.
func withoutOurs(t *testing.T, env []string) []string {
	t.Helper()
	var ours []string
	rest := slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "METAPARTICLE_") {
			ours = append(ours, name)
			return true
		}
		return false
	})
	assert.Equal(t, []string{"METAPARTICLE_FENCING_TOKEN", "METAPARTICLE_SLOT"}, ours)
	return rest
}

// layered pushes images of Debian that have test/app at /opt/bin/app, and /opt/bin in PATH. For
// each image NAME, the result has two keys. The key NAME has the reference by tag. The key NAME@ has
// the reference by digest.
func layered(s *space.Space, configs map[string]v1.Config) map[string]string {
	s.Helper()
	base, err := oci.Debian(s.Context(), nil, oci.Config{}, oci.Uncompressed)
	require.NoError(s, err)
	program := filepath.Join(s.TempDir(), "app")
	require.NoError(s, oci.Compile(s.Context(), oci.TestApp, program))
	data, err := os.ReadFile(program)
	require.NoError(s, err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	require.NoError(s, w.WriteHeader(&tar.Header{Name: "opt/bin/app", Mode: 0o755, Size: int64(len(data))}))
	_, err = w.Write(data)
	require.NoError(s, err)
	require.NoError(s, w.Close())
	base, err = mutate.AppendLayers(base, static.NewLayer(layer.Bytes(), types.OCIUncompressedLayer))
	require.NoError(s, err)

	found := map[string]string{}
	for name, config := range configs {
		config.Env = []string{"PATH=/opt/bin:/usr/bin:/bin", "FROM_IMAGE=$(HOME) is $HOME"}
		img, err := mutate.Config(base, config)
		require.NoError(s, err)
		digest, err := img.Digest()
		require.NoError(s, err)
		// Nodes may have older images under the same name, so the tag is a part of the digest.
		tag := "/e2e/rows-" + name + ":" + digest.Hex[:12]
		require.NoError(s, oci.Push(s.Context(), cluster.Lab.Registry()+tag, img))
		found[name] = lab.RegistryInCluster + tag
		found[name+"@"] = lab.RegistryInCluster + "/e2e/rows-" + name + "@" + digest.String()
	}
	return found
}

// The containers of the pod have their commands in different places: in the pod, in the image, or
// in both.
//
// docs/reference/compatibility.md: command/command command/args command/entrypoint command/cmd command/shell-form command/expansion carried
// docs/reference/compatibility.md: command/path command/working-dir command/environment command/tag command/digest carried
// docs/reference/compatibility.md: kinds/pod lifecycle/restart-never pod/several pod/logs carried
func TestChildStartsExactlyLikeTheUngatedProcess(t *testing.T) {
	cluster.NeedLab(t, "it pushes images")
	t.Parallel()
	s := space.New(t)
	images := layered(s, map[string]v1.Config{
		"cmd":   {Cmd: []string{"/opt/bin/app", "-facts", "$(GREETING)", "$$"}, WorkingDir: "/var/tmp"},
		"entry": {Entrypoint: []string{"app", "-facts", "entry point"}, Cmd: []string{"from cmd", ""}},
		"shell": {Cmd: []string{"/bin/sh", "-c", `LATE=$((6*7)); export LATE; cd /var; exec app -facts "$FROM_IMAGE" 'x  y' "$LATE" $(echo two words)`}},
	})
	container := func(name, image string, edit func(*corev1.Container)) corev1.Container {
		c := corev1.Container{Name: name, Image: images[image], Env: []corev1.EnvVar{{Name: "GREETING", Value: "hello"},
			{Name: "COMPOSED", Value: "$(GREETING), $$(GREETING), $(NOBODY)"}}}
		if edit != nil {
			edit(&c)
		}
		return c
	}
	expanded := []string{"-facts", "$(GREETING)", "$$(GREETING)", "$(NOBODY)", "${GREETING}", "$(COMPOSED)", "", "a b", "é\n"}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{
		container("command", "entry", func(c *corev1.Container) { c.Command = []string{"/opt/bin/app", "-facts", "--", "-x"} }),
		container("command-and-args", "entry@", func(c *corev1.Container) { c.Command, c.Args = []string{"app"}, expanded }),
		container("args", "entry", func(c *corev1.Container) { c.Args = expanded }),
		container("entrypoint", "entry@", nil),
		container("cmd", "cmd", nil),
		container("shell-form", "shell@", nil),
		container("own-shell", "cmd", func(c *corev1.Container) {
			c.Command = []string{"sh", "-c", `exec app -facts "$0" "$@" $GREETING`}
			c.Args = []string{"zero", "$(GREETING) one"}
		}),
		container("directory", "cmd@", func(c *corev1.Container) { c.WorkingDir = "/usr/lib" }),
	}}}
	plain, gated := likened(s, pod)
	for name, before := range plain {
		t.Run(name, func(t *testing.T) {
			after := gated[name]
			after.Env = withoutOurs(t, after.Env)
			assert.Equal(t, before, after)
		})
	}
	assert.Equal(t, []string{"app", "-facts", "entry point", "from cmd", ""}, plain["entrypoint"].Args)
	assert.Equal(t, []string{"/opt/bin/app", "-facts", "$(GREETING)", "$$"}, plain["cmd"].Args, "nobody expands what an image says")
}
