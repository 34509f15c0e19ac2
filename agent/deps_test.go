// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/metaparticle-io/metaparticle/"

// dependencies returns all packages that the packages of the patterns import, directly or through
// other packages. The imports of tests do not count. The result does not contain the packages of
// the patterns themselves.
func dependencies(t *testing.T, patterns ...string) []string {
	t.Helper()
	list := func(args ...string) []string {
		out, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
		require.NoError(t, err)
		return strings.Fields(string(out))
	}
	own := list(patterns...)
	var others []string
	for _, d := range list(append([]string{"-deps"}, patterns...)...) {
		if !slices.Contains(own, d) {
			others = append(others, d)
		}
	}
	require.NotEmpty(t, others, "go list found nothing, so nothing is tested")
	return others
}

// standard reports whether the package belongs to the standard library: the first element of
// its path contains no dot.
func standard(pkg string) bool {
	first, _, _ := strings.Cut(pkg, "/")
	return !strings.Contains(first, ".")
}

// io are packages that a pure decision does not import.
var io = []string{"net", "net/http", "log/slog", "context", "os/exec", "math/rand", "math/rand/v2"}

// A simulation and a fuzz test can drive a claim alone, although its driver is in the same package.
func TestClaimDecidesWithoutIO(t *testing.T) {
	files, err := filepath.Glob("elector/*.go")
	require.NoError(t, err)
	require.Contains(t, files, "elector/waiting.go")
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "elector/elector.go" || file == "elector/record.go" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range parsed.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			name, ours := strings.CutPrefix(path, module)
			pure := slices.Contains([]string{"api", "agent/lease", "agent/pace"}, name)
			assert.True(t, ours && pure || standard(path) && !slices.Contains(io, path), "%s imports %s", file, path)
		}
	}
}

// The rules of imports. Within this module a package may import only the packages of the field "may",
// if that field is set, and never those of the field "never". In both, a path that ends with a slash
// stands for all packages below it. The rules count imports through other packages, too.
func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	heavy := []string{"k8s.io/", "sigs.k8s.io/", "github.com/prometheus/", "google.golang.org/"}
	gate := []string{"agent/gate", "agent/shim", "agent/linux"}
	for _, rule := range []struct {
		why      string
		packages []string
		may      []string
		never    []string
	}{
		{
			why: "an agent runs in every gated pod, so its size counts: client-go takes 20 MB more on disk than net/http, and 14 MB " +
				"more in memory; and if a holder is cut off, its leader election lets two pods hold for seconds",
			packages: []string{"cmd/agent"}, never: append(heavy, "os/exec"), // agent/linux starts processes, in 40 kB less
		},
		{
			why:      "each gated pod has its own copy of the shim, whose memory counts against the application's limit",
			packages: []string{"cmd/shim"}, never: append(heavy, "net/http", "crypto/tls", "crypto/x509", "regexp"),
		},
		{why: "each gated pod pays for the size of api", packages: []string{"api"}, may: []string{}},
		{why: "each gated pod pays for its size", packages: []string{"api/addresses"}, may: []string{}, never: []string{"net"}},
		{
			why:      "a decision takes the time as an argument and does no I/O, so a simulation and a fuzz test can drive it",
			packages: []string{"agent/lease"}, may: []string{"api"}, never: io,
		},
		{why: "a decision", packages: []string{"agent/turn", "agent/leave", "agent/ends"}, may: []string{"api", "agent/pace"}, never: io},
		{
			why:      "status shows what the claim sees, and decides about no rollout and no leave",
			packages: []string{"agent/status"}, never: []string{"agent/turn", "agent/leave"},
		},
		{
			why:      "a forwarder knows no slot, so nothing that a client sends can change a decision about a slot",
			packages: []string{"agent/proxy"}, may: []string{"api/addresses"},
		},
		{why: "a probe can neither begin nor end a hold", packages: []string{"agent/probe"}, may: []string{"api"}},
		{why: "no hold depends on a condition or an arrival", packages: []string{"agent/wait"}, may: []string{"api", "agent/kube", "agent/linux", "agent/pace"}},
		{
			why:      "agent and local write Leases by the same code",
			packages: []string{"agent/elector"},
			may:      []string{"api", "agent/kube", "agent/lease", "agent/linux", "agent/pace"},
		},
		{why: "a Lease proves no death: only package agent combines both", packages: []string{"agent/lease"}, never: gate},
		{why: "a Lease proves no death: only package agent combines both", packages: gate, never: []string{"agent/lease"}},
		{why: "a Lease proves no death: only package agent combines both", packages: []string{"agent/elector"}, never: []string{"agent/gate"}},
		{
			why:      "no call may bypass the connection between agent and shim, and reports alone prove a death",
			packages: []string{"agent/gate"}, may: []string{"agent/linux", "api"}, never: []string{"net/http", "os/exec", "os/signal"},
		},
		{
			why:      "no call may bypass the connection between agent and shim",
			packages: []string{"agent/shim"}, may: []string{"agent/gate", "agent/linux", "api"},
		},
		{why: "linux knows no slot, no grant and no child", packages: []string{"agent/linux"}, may: []string{}},
	} {
		for _, pkg := range rule.packages {
			for _, d := range dependencies(t, module+pkg) {
				name, ours := strings.CutPrefix(d, module)
				assert.True(t, !ours || standard(d) || rule.may == nil || slices.Contains(rule.may, name), "%s imports %s; %s", pkg, d, rule.why)
				assert.False(t, slices.ContainsFunc(rule.never, func(never string) bool {
					return name == never || strings.HasSuffix(never, "/") && strings.HasPrefix(d, never)
				}), "%s imports %s; %s", pkg, d, rule.why)
				assert.True(t, ours || standard(d) || strings.HasPrefix(d, "golang.org/x/sys/"), "%s imports %s: each megabyte is paid for once a pod", pkg, d)
			}
		}
	}
}

// Webhook and agent share only the packages of the folder api, and package crowd, which knows no
// pod. So each change of their contract is visible in that folder.
func TestWebhookAndAgentDoNotImportEachOther(t *testing.T) {
	for _, d := range dependencies(t, module+"cmd/agent", module+"agent/...") {
		for _, other := range []string{"mutate", "enroll", "cmd/webhook"} {
			assert.False(t, strings.HasPrefix(d, module+other), "the agent imports %s", d)
		}
	}
	for _, d := range dependencies(t, module+"cmd/webhook", module+"mutate/...", module+"enroll/...") {
		assert.False(t, strings.HasPrefix(d, module+"agent"), "the webhook imports %s", d)
	}
}

// Each package of mutate imports only packages of lower layers. So no feature waits for the
// network while it judges a pod, and only package admit answers calls of the API server.
func TestPackagesOfMutateImportOnlyLowerLayers(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	own := func(pkg string) (all []string) {
		for _, d := range dependencies(t, module+pkg) {
			if name, ok := strings.CutPrefix(d, module); ok {
				all = append(all, name)
			}
		}
		return all
	}
	for pkg, want := range map[string][]string{
		"mutate/patch":   nil,
		"mutate/load":    nil,
		"mutate/image":   nil,
		"mutate/reason":  {"api"},
		"mutate/feature": {"api", "api/podspec", "mutate/image", "mutate/load", "mutate/patch", "mutate/reason"},
		"mutate":         {"api", "api/podspec", "mutate/feature", "mutate/image", "mutate/load", "mutate/patch", "mutate/reason"},
		"mutate/admit": {
			"api", "api/podspec", "mutate", "mutate/feature", "mutate/image", "mutate/load", "mutate/patch", "mutate/reason",
		},
		"mutate/image/registry": {"api/addresses", "mutate/image"},
	} {
		assert.ElementsMatch(t, want, own(pkg), pkg)
	}
	for _, d := range dependencies(t, module+"mutate") {
		assert.NotContains(t, d, "go-containerregistry", "only image/registry asks registries")
		assert.False(t, strings.HasPrefix(d, "sigs.k8s.io/controller-runtime"), "only admit answers calls")
	}
}

// Tests of the agent's packages use the simulation's API server, which imports some of these packages.
// No program that a cluster runs may contain any part of the simulation.
func TestNoProgramLinksTheSimulation(t *testing.T) {
	for _, d := range dependencies(t, module+"cmd/...") {
		assert.False(t, strings.HasPrefix(d, module+"sim/"), "a program links %s", d)
	}
}
