// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package tutorials

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/tutorial"
	"github.com/metaparticle-io/metaparticle/test/image/public"
)

// images puts the images of the tutorials into the registry, once for all tests.
var images = sync.OnceValue(func() error { return public.Push(context.Background(), cluster.Lab.Registry()) })

// plugin compiles the kubectl plugin once for all tests, and returns the executable file. A
// compilation for each test would take most of the test's time.
var plugin = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "tutorials")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "plugin")
	build := exec.CommandContext(context.Background(), "go", "build", "-C", "../..", "-trimpath", "-ldflags=-s -w", "-o", program, "./cmd/kubectl-metaparticle")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the plugin: %w: %s", err, out)
	}
	return os.ReadFile(program)
})

// timeout is longer than a page takes on a busy machine. A page takes about a minute.
const timeout = 10 * time.Minute

// follow follows a page of docs/tutorials, and reports all outputs that differ. A page and its
// namespace have the same name.
func follow(t *testing.T, name string) {
	t.Helper()
	cluster.NeedLab(t, "its registry has the images, and the namespaces have the names of the pages")
	t.Parallel()
	require.NoError(t, images())
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "tutorials", name+".md"))
	require.NoError(t, err)
	steps, err := tutorial.Parse(page)
	require.NoError(t, err)
	require.NotEmpty(t, steps)
	s := space.Reserve(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	dir := t.TempDir()
	// The shell stands in a clone of the repository as far as a page needs it.
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(examples, filepath.Join(dir, "examples")))
	shell, err := tutorial.Start(ctx, dir, environment(s))
	require.NoError(t, err)
	code := 0
	for _, step := range steps {
		if step.File != "" {
			require.NoError(t, os.WriteFile(filepath.Join(dir, step.File), []byte(step.Text), 0o644))
			continue
		}
		since := time.Now()
		var output []string
		output, code, err = shell.Run(step.Command, code)
		require.NoError(t, err, "%s: %s", step.Command, strings.Join(output, "\n"))
		t.Logf("%.1fs $ %s\n%s", time.Since(since).Seconds(), step.Command, strings.Join(output, "\n"))
		if code != 0 && !step.Fails {
			require.FailNow(t, fmt.Sprintf("exit code %d: %s\n%s", code, step.Command, strings.Join(output, "\n")))
		}
		assert.True(t, tutorial.Matches(step.Output, output), "%s\nshown:\n%s\noutput:\n%s",
			step.Command, strings.Join(step.Output, "\n"), strings.Join(output, "\n"))
	}
	assert.NoError(t, shell.Close())
}

// environment returns the environment of a person's shell, with kubectl and its plugin in PATH. The
// kubeconfig is a copy, because a page changes the current context.
func environment(s *space.Space) []string {
	s.Helper()
	bin := s.TempDir()
	program, err := exec.LookPath(cluster.Lab.Kubectl(s.Context()).Path)
	require.NoError(s, err)
	require.NoError(s, os.Symlink(program, filepath.Join(bin, "kubectl")))
	compiled, err := plugin()
	require.NoError(s, err)
	require.NoError(s, os.WriteFile(filepath.Join(bin, "kubectl-metaparticle"), compiled, 0o755))
	kubeconfig, err := os.ReadFile(cluster.Kubeconfig)
	require.NoError(s, err)
	own := filepath.Join(bin, "kubeconfig")
	require.NoError(s, os.WriteFile(own, kubeconfig, 0o600))
	return append(os.Environ(), "KUBECONFIG="+own, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestWorkerTutorialShowsTheRealOutputs(t *testing.T)           { follow(t, "worker-runs-once") }
func TestNightlyJobTutorialShowsTheRealOutputs(t *testing.T)       { follow(t, "nightly-job") }
func TestElectionLibraryTutorialShowsTheRealOutputs(t *testing.T)  { follow(t, "election-library") }
func TestClientGoTutorialShowsTheRealOutputs(t *testing.T)         { follow(t, "client-go-leases") }
func TestLoadTestTutorialShowsTheRealOutputs(t *testing.T)         { follow(t, "load-test") }
func TestK8sAwaitElectionTutorialShowsTheRealOutputs(t *testing.T) { follow(t, "await-election") }
