// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package laptop follows docs/how-to/laptop.md on a cluster of one node that has no registry.
//
// kind, k3d and minikube cannot run on the test machine, because each of them starts containers
// that run containerd. A stand-in of each loads the archive by the ctr command that the real tool
// runs on its node. So the test shows that the archive, the names of the images and the
// installation work without a registry, and not that the real tools do.
package laptop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/tutorial"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

const root = "../.."

// elsewhere matches the commands that need the internet. The test cluster has cert-manager already.
var elsewhere = regexp.MustCompile(`^(git clone|kubectl apply -f https:)`)

func TestLaptopPageLeadsToAFailoverWithoutARegistry(t *testing.T) {
	if os.Getenv("METAPARTICLE_CLUSTER_TEST") == "" {
		t.Skip("takes root and a cluster of its own: make laptop")
	}
	page, err := os.ReadFile(filepath.Join(root, "docs/how-to/laptop.md"))
	require.NoError(t, err)
	steps, err := tutorial.Parse(page)
	require.NoError(t, err)
	c := up(t)
	environment := tools(t, c)
	loadPublicImage(t, c)
	require.NoError(t, c.Kill(t.Context(), lab.ControlPlane, "registry"))
	shell, err := tutorial.Start(t.Context(), root, environment)
	require.NoError(t, err)
	code, skipped := 0, 0
	run := func(command string, want []string) {
		var output []string
		output, code, err = shell.Run(command, code)
		t.Logf("$ %s\n%s", command, strings.Join(output, "\n"))
		require.NoError(t, err)
		require.Zero(t, code, command)
		if want != nil {
			require.True(t, tutorial.Matches(want, output), "%s\nshown:\n%s", command, strings.Join(want, "\n"))
		}
	}
	for _, step := range steps {
		if elsewhere.MatchString(step.Command) {
			skipped++
			continue
		}
		run(step.Command, step.Output)
	}
	assert.Equal(t, 2, skipped, "the clone and cert-manager")
	for _, other := range []string{"k3d", "minikube"} {
		forget(t, c)
		run("make "+other, nil)
		assert.Len(t, loaded(t, c), 2, other)
	}
	// What the page says of one's own images: without a command, the webhook asks their registry.
	command := exec.CommandContext(t.Context(), "kubectl", "-n", "laptop", "run", "mine", "--image=localhost/mine:1",
		"--annotations=metaparticle.io/lock=mine", "--dry-run=server")
	command.Env = environment
	out, err := command.CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), "ImageUnreadable")
	assert.NoError(t, shell.Close())
}

// up brings up a cluster of one worker, and removes it after the test.
func up(t *testing.T) *lab.Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "laptop-") //nolint:usetesting // after a failure its logs must stay
	require.NoError(t, err)
	t.Cleanup(func() {
		if !t.Failed() {
			assert.NoError(t, os.RemoveAll(dir))
		}
	})
	c, err := lab.Open(dir)
	require.NoError(t, err)
	c.Workers, c.Progress = 1, t.Output()
	t.Cleanup(func() { assert.NoError(t, c.Down(context.WithoutCancel(t.Context()))) })
	require.NoError(t, c.Up(t.Context()))
	// No other test needs ctr, so the cluster does not have it.
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", c.Path("bin", "ctr"), "github.com/containerd/containerd/v2/cmd/ctr")
	build.Dir, build.Env = "../cluster/programs/containerd", append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	return c
}

// tools returns an environment with kubectl, and with stand-ins of kind, k3d and minikube for the
// cluster. The kubeconfig has a context for minikube, as minikube itself writes it.
func tools(t *testing.T, c *lab.Cluster) []string {
	t.Helper()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "cluster"), "../cluster")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	kubeconfig := filepath.Join(bin, "kubeconfig")
	text, err := os.ReadFile(c.Kubeconfig())
	require.NoError(t, err)
	current := regexp.MustCompile(`(?m)^current-context: (.*)$`).FindStringSubmatch(string(text))
	require.NotNil(t, current)
	require.NoError(t, os.WriteFile(kubeconfig, []byte(strings.ReplaceAll(string(text), current[1], "minikube")), 0o600))
	node := fmt.Sprintf("%s/cluster -dir %s exec n1", bin, c.Root)
	for tool, cases := range map[string]string{
		"kind": fmt.Sprintf(`
"load image-archive out/laptop/images.tar --name kind") %s ctr --namespace=k8s.io images import --all-platforms --digests - <$3;;
"get kubeconfig --name kind") cat %s;;`, node, c.Kubeconfig()),
		"k3d": fmt.Sprintf(`
"image import out/laptop/images.tar --cluster k3s-default") %s ctr --namespace=k8s.io image import --all-platforms - <$3;;
"kubeconfig get k3s-default") cat %s;;`, node, c.Kubeconfig()),
		"minikube": fmt.Sprintf(`
"image load out/laptop/images.tar --profile minikube") %s ctr -n=k8s.io images import - <$3;;`, node),
	} {
		script := "#!/bin/sh\ncase \"$*\" in" + cases + "\n*) echo \"unexpected: $0 $*\" >&2; exit 1;;\nesac\n"
		require.NoError(t, os.WriteFile(filepath.Join(bin, tool), []byte(script), 0o700))
	}
	require.NoError(t, os.Symlink(c.Path("bin", "kubectl"), filepath.Join(bin, "kubectl")))
	return append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "MAKEFLAGS=", "MAKELEVEL=")
}

// loadPublicImage loads the image that the page's manifest names, which a laptop pulls from the
// internet.
func loadPublicImage(t *testing.T, c *lab.Cluster) {
	t.Helper()
	image, err := oci.Debian(t.Context(), nil, oci.Config{Cmd: []string{"bash"}}, oci.Uncompressed)
	require.NoError(t, err)
	tag, err := name.NewTag("docker.io/library/debian:bookworm-slim")
	require.NoError(t, err)
	file, err := os.Create(filepath.Join(t.TempDir(), "debian.tar"))
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, tarball.Write(tag, image, file))
	_, err = file.Seek(0, 0)
	require.NoError(t, err)
	require.NoError(t, c.Exec(t.Context(), "n1", file, t.Output(), t.Output(), "ctr", "-n", "k8s.io", "images", "import", "-"))
}

// loaded returns the names of our images that the node has.
func loaded(t *testing.T, c *lab.Cluster) (names []string) {
	t.Helper()
	var out strings.Builder
	require.NoError(t, c.Exec(t.Context(), "n1", nil, &out, t.Output(), "ctr", "-n", "k8s.io", "images", "list", "-q"))
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "localhost/metaparticle/") {
			names = append(names, strings.TrimSpace(line))
		}
	}
	return names
}

// forget removes our images from the node, so that the next tool has to load them.
func forget(t *testing.T, c *lab.Cluster) {
	t.Helper()
	names := loaded(t, c)
	require.NotEmpty(t, names)
	require.NoError(t, c.Exec(t.Context(), "n1", nil, t.Output(), t.Output(),
		append([]string{"ctr", "-n", "k8s.io", "images", "remove", "--sync"}, names...)...))
}
