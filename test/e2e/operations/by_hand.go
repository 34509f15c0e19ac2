// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// plugin is the kubectl plugin, as a person runs it.
type plugin struct {
	*space.Space
	binary, kubeconfig string
}

func newPlugin(s *space.Space) plugin {
	s.Helper()
	p := plugin{Space: s, binary: filepath.Join(s.TempDir(), "kubectl-metaparticle"), kubeconfig: cluster.Kubeconfig}
	build := exec.CommandContext(s.Context(), "go", "build", "-C", "../..", "-trimpath", "-o", p.binary, "./cmd/kubectl-metaparticle")
	out, err := build.CombinedOutput()
	require.NoError(s, err, "%s", out)
	return p
}

// run runs a command of the plugin, requires the exit code, and returns the output.
func (p plugin) run(code int, command string, args ...string) string {
	p.Helper()
	flags := []string{command, "--kubeconfig", p.kubeconfig}
	if !slices.Contains([]string{"check", "console", "recover"}, command) {
		flags = append(flags, "-n", p.Namespace) // the other commands act on the whole cluster
	}
	args = append(flags, args...)
	out, err := exec.CommandContext(p.Context(), p.binary, args...).CombinedOutput()
	is := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		is = exit.ExitCode()
	} else {
		require.NoError(p, err)
	}
	require.Equal(p, code, is, "%s", out)
	p.Logf("%s: %s", command, out)
	return string(out)
}

// standsFor is longer than any handover. If no pod holds the slot for this time, the test concludes
// that the pause keeps all pods from acquiring the slot.
const standsFor = 5 * time.Second

func TestKubectlPluginHandsOverAndPausesASlot(t *testing.T) {
	t.Parallel()
	s, a := space.New(t), app.Lasting("clerk")
	a.Replicas = 3
	app.Deploy(s, a)
	p, slot := newPlugin(s), lease.OfDeployment(a.Name)
	first := s.AwaitHolder(slot)
	app.AwaitRunning(s, a, space.Soon)
	s.Await(space.Soon, "all replicas are Ready", func() bool {
		ready := 0
		for _, pod := range s.Pods(a.Name) {
			if status.Ready(pod) {
				ready++
			}
		}
		return ready == int(a.Replicas)
	})
	shown := p.run(0, "status", "-v")
	assert.Contains(t, shown, slot+": singleton, held by "+first.Name)
	assert.Contains(t, shown, "2 standbys")
	assert.Contains(t, shown, "StandingBy: a holder of "+slot+" serves")

	var named string
	for _, pod := range s.Pods(a.Name) {
		if pod.UID != first.UID {
			named = pod.Name
		}
	}
	assert.Contains(t, p.run(3, "yield", "--to", first.Name, "deployment/clerk"), "it holds already")
	assert.Contains(t, p.run(0, "yield", "--to", named, "deployment/clerk"), slot+": "+named+" holds, ")
	s.Await(space.Soon, "the test's watch shows "+named, func() bool { return api.PodOf(s.Identity(slot)) == named })
	second := s.AwaitHolder(slot)
	s.Await(space.Soon, "the application runs in "+named, func() bool {
		now := s.Running(a.Name)
		return now != nil && now.Pod == named
	})

	assert.Contains(t, p.run(0, "pause", "deployment/clerk"), "goes on")
	app.DeletePod(s, second)
	s.Await(space.Soon, "the holder's end", func() bool { return s.Identity(slot) == "" })
	s.Never(standsFor, "a holder of a paused slot", func() bool { return s.Identity(slot) != "" || s.Running(a.Name) != nil })
	s.Await(space.Soon, "the standbys say that the slot is paused", func() bool {
		for _, pod := range s.Pods(a.Name) {
			for _, c := range pod.Status.Conditions {
				if c.Reason == "Paused" {
					return true
				}
			}
		}
		return false
	})
	assert.Contains(t, p.run(0, "status", "-v", "deployment/clerk"), slot+": singleton, nobody holds, paused (hold)")
	p.run(3, "yield", "deployment/clerk")

	p.run(0, "resume", "deployment/clerk")
	third := s.AwaitHolder(slot)
	assert.NotEqual(t, named, third.Name)
	app.AwaitRunning(s, a, space.Soon)
	assert.Contains(t, p.run(0, "pause", "--stop", "deployment/clerk"), third.Name+" has stopped, ")
	assert.Nil(t, s.Running(a.Name))
	p.run(0, "resume", "deployment/clerk")
	app.AwaitRunning(s, a, space.Soon)
}
