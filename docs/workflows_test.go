// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// step is a step of a job in .github/workflows.
type step struct {
	Name, Uses, Run string
}

// workflows returns the steps of all jobs, by the name of the workflow's file and of the job.
func workflows(t *testing.T) map[string][]step {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, ".github/workflows/*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	found := map[string][]step{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var workflow struct {
			Jobs map[string]struct{ Steps []step }
		}
		require.NoError(t, yaml.Unmarshal(text, &workflow))
		for name, job := range workflow.Jobs {
			found[filepath.Base(file)+" "+name] = job.Steps
		}
	}
	return found
}

// A tag of an action can move to a commit of a stranger.
func TestWorkflowsPinActionsByCommit(t *testing.T) {
	pinned := regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40}$`)
	for job, steps := range workflows(t) {
		for _, s := range steps {
			assert.True(t, s.Uses == "" || pinned.MatchString(s.Uses), "%s uses %s", job, s.Uses)
			assert.NotContains(t, s.Run, "${{", "%s: pass the value by env, because a tag's name can be a command", job)
		}
	}
}

// make -n reads the whole Makefile and runs nothing but the recursive calls, which are dry, too.
func TestWorkflowsCallExistingTargets(t *testing.T) {
	called := 0
	for job, steps := range workflows(t) {
		for _, s := range steps {
			for _, match := range regexp.MustCompile(`(?m)\bmake (.+)$`).FindAllStringSubmatch(s.Run, -1) {
				called++
				command := exec.CommandContext(t.Context(), "bash", "-ec", "make -n "+match[1])
				command.Dir = root
				command.Env = append(os.Environ(), "SHARE=1/2", "VERSION=v1.2.3", "MAKEFLAGS=")
				if strings.HasPrefix(job, "release.yaml") {
					command.Env = append(command.Env, "REGISTRY=r.example/m")
				}
				out, err := command.CombinedOutput()
				assert.NoError(t, err, "%s: %s\n%s", job, match[0], out)
			}
		}
	}
	assert.GreaterOrEqual(t, called, 5)
}

// What is meant for a cluster of one's own never brings up or changes the test cluster instead, and the reverse.
func TestMakeRefusesTheWrongCluster(t *testing.T) {
	const own, none = "KUBECONFIG=/own/config", "KUBECONFIG="
	for name, test := range map[string]struct{ environment, arguments, says string }{
		"exported kubeconfig":              {own, "install REGISTRY=r.example/m", "make install KUBECONFIG=/own/config REGISTRY=r.example/m"},
		"all variables in the environment": {own + " REGISTRY=r.example/m", "install", "make install KUBECONFIG=/own/config REGISTRY=r.example/m"},
		"no kubeconfig":                    {none, "install REGISTRY=r.example/m", "/.kube/config REGISTRY=r.example/m"},
		"tests":                            {own, "e2e REGISTRY=r.example/m", "make e2e KUBECONFIG=/own/config"},
		"cluster":                          {own, "cluster REGISTRY=r.example/m", "The test cluster has a registry"},
		"uninstall":                        {own, "uninstall CLUSTER=/none", "make uninstall KUBECONFIG=/own/config"},
		"demo on one's own cluster":        {none, "demo KUBECONFIG=/own/config REGISTRY=r.example/m", "make demo runs on the test cluster alone"},
		"benchmark on one's own cluster":   {none, "bench-idle KUBECONFIG=/own/config REGISTRY=r.example/m", "make bench-idle runs on the test cluster alone"},
		"demo with a registry":             {own, "demo REGISTRY=r.example/m", "leave KUBECONFIG and REGISTRY out"},
		"own cluster":                      {none, "install KUBECONFIG=/own/config REGISTRY=r.example/m", ""},
		"own cluster's end":                {none, "uninstall KUBECONFIG=/own/config", ""},
		"test cluster":                     {own, "install", ""},
		"tests on the test cluster":        {none, "e2e", ""},
		"chart":                            {own, "chart REGISTRY=r.example/m", ""},
	} {
		t.Run(name, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), "make", append([]string{"-n", "--no-print-directory"}, strings.Fields(test.arguments)...)...)
			command.Dir = root
			command.Env = append(append(os.Environ(), "MAKEFLAGS=", "REGISTRY="), strings.Fields(test.environment)...)
			out, err := command.CombinedOutput()
			if test.says == "" {
				require.NoError(t, err, "%s", out)
				syntax := exec.CommandContext(t.Context(), "bash", "-n")
				syntax.Stdin = bytes.NewReader(out)
				says, err := syntax.CombinedOutput()
				require.NoError(t, err, "%s\n%s", says, out)
				return
			}
			require.Error(t, err)
			assert.Contains(t, string(out), test.says)
			assert.NotContains(t, string(out), "tools/install")
			assert.NotContains(t, string(out), "cluster up")
		})
	}
}

// released runs the steps of the release's jobs for a tag until one fails, in one folder, with stand-ins for what
// reaches the internet. It returns the folder, and the failure.
func released(t *testing.T, tag, released string) (dir string, failed error) {
	dir = t.TempDir()
	files := filepath.Join(dir, "out/release", tag)
	tool := func(name, script string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/bash\necho \"${0##*/} $*\" >>calls\n"+script), 0o700))
	}
	tool("docker", "cat >/dev/null\n")
	tool("gh", "[[ $2 != view || $3 == "+released+" ]]\n")
	tool("go", "if [ \"$1\" = env ]; then echo /go; fi\n")
	tool("cosign", `for word; do case $word in --bundle) bundle=1;; *) if [ -n "$bundle" ]; then touch "$word"; bundle=; fi;; esac; done`+"\n")
	tool("make", `mkdir -p "$FILES" && cd "$FILES"
for name in agent metaparticle webhook; do echo "$REGISTRY/$name@sha256:$name"; done >references.txt
touch checksums.txt agent_linux_amd64.cdx.json webhook_linux_amd64.cdx.json install.yaml
`)
	all := workflows(t)
	for _, s := range slices.Concat(all["release.yaml build"], all["release.yaml publish"], all["release.yaml sign"], all["release.yaml release"]) {
		if s.Run == "" {
			continue
		}
		command := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", s.Run)
		command.Dir = dir
		command.Env = []string{
			"PATH=" + dir + ":" + os.Getenv("PATH"), "VERSION=" + tag, "REGISTRY=r.example/m", "FILES=" + files, "TOKEN=t",
			"GITHUB_ACTOR=a", "GITHUB_OUTPUT=" + filepath.Join(dir, "output"), "GITHUB_SERVER_URL=https://g.example", "GITHUB_REPOSITORY=o/r",
		}
		if out, err := command.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("%s: %w\n%s", s.Name, err, out)
		}
	}
	return dir, nil
}

// A job runs only what its rights are for: a dependency that runs while the product is built can write nowhere.
func TestReleaseWorkflowSplitsTheRightsToWrite(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".github/workflows/release.yaml"))
	require.NoError(t, err)
	type rights map[string]string
	var workflow struct {
		Permissions rights
		Jobs        map[string]struct {
			Needs       string
			Permissions rights
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &workflow))
	assert.Equal(t, rights{"contents": "read"}, workflow.Permissions)
	for name, want := range map[string]struct {
		after  string
		rights rights
	}{
		"test":    {"", nil},
		"build":   {"test", nil},
		"publish": {"build", rights{"contents": "read", "packages": "write"}},
		"sign":    {"publish", rights{"packages": "write", "id-token": "write", "attestations": "write"}},
		"release": {"sign", rights{"contents": "write"}},
	} {
		assert.Equal(t, want.after, workflow.Jobs[name].Needs, name)
		assert.Equal(t, want.rights, workflow.Jobs[name].Permissions, name)
	}
	assert.Len(t, workflow.Jobs, 5)
}

// make and the shell would run a command in the name of a tag.
func TestReleaseWorkflowRefusesOddAndReleasedTags(t *testing.T) {
	for name, tag := range map[string]string{
		"command": "v1.0.0;{touch,pwned}", "command after a hyphen": "v1.0.0-`id`", "variable of make": "v1.0.0-$(SHELL)", "two lines": "v1.0.0\nid", "moved": "v0.9.0",
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := released(t, tag, "v0.9.0")
			require.Error(t, err)
			calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
			assert.NotContains(t, string(calls), "docker")
			assert.NotContains(t, string(calls), "make")
		})
	}
}

func TestReleaseWorkflowSignsEverythingThatItPublishes(t *testing.T) {
	dir, err := released(t, "v1.0.0-rc.1", "v0.9.0")
	require.NoError(t, err)
	files := filepath.Join(dir, "out/release/v1.0.0-rc.1")
	text, err := os.ReadFile(filepath.Join(dir, "calls"))
	require.NoError(t, err)
	calls := strings.ReplaceAll(string(text), files+"/", "")
	for _, want := range []string{
		"make release VERSION=v1.0.0-rc.1 REGISTRY=r.example/m ADDRESS=https://g.example/o/r/releases/download\n",
		"make release VERSION=v1.0.0-rc.1 REGISTRY=r.example/m PUSH=only\n",
		"cosign sign --yes r.example/m/agent@sha256:agent\n", "cosign sign --yes r.example/m/webhook@sha256:webhook\n",
		"cosign sign --yes r.example/m/metaparticle@sha256:metaparticle\n",
		"cosign attest --yes --type cyclonedx --predicate webhook_linux_amd64.cdx.json r.example/m/webhook@sha256:webhook\n",
		"cosign sign-blob --yes --bundle checksums.txt.sigstore.json checksums.txt\n",
		"gh release create v1.0.0-rc.1 --verify-tag --generate-notes --prerelease agent_linux_amd64.cdx.json checksums.txt checksums.txt.sigstore.json install.yaml",
	} {
		assert.Contains(t, calls, want)
	}
	output, err := os.ReadFile(filepath.Join(dir, "output"))
	require.NoError(t, err)
	assert.Equal(t, "agent=sha256:agent\nmetaparticle=sha256:metaparticle\nwebhook=sha256:webhook\n", string(output))
}
