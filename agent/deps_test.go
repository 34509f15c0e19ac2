// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os/exec"
	"slices"
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
// its path contains no dot. Package quiet counts, because it only replaces calls of package syscall.
func standard(pkg string) bool {
	first, _, _ := strings.Cut(pkg, "/")
	return !strings.Contains(first, ".") || pkg == module+"agent/quiet"
}

// An agent runs in every gated pod, so its size counts. The library client-go takes 20 MB more
// on disk than net/http, and 14 MB more in memory. If a holder is cut off, the leader election
// of client-go lets two pods hold for seconds.
func TestTheAgentLinksNoKubernetesLibrary(t *testing.T) {
	for _, d := range dependencies(t, module+"cmd/agent") {
		for _, heavy := range []string{"k8s.io/", "sigs.k8s.io/", "github.com/prometheus/", "google.golang.org/"} {
			assert.False(t, strings.HasPrefix(d, heavy), "cmd/agent links %s", d)
		}
		assert.NotEqual(t, "os/exec", d, "40 kB for a second way to start a process: agent/host has the first")
		assert.True(t, standard(d) || strings.HasPrefix(d, module) || strings.HasPrefix(d, "golang.org/x/sys/"),
			"cmd/agent links %s: each megabyte is paid for once a pod", d)
	}
}

// Each gated pod has its own copy of the shim's program, and the memory of the shim counts against the
// application's limit. Package http and TLS would make the program twice as large.
func TestTheShimLinksNeitherHTTPNorTLS(t *testing.T) {
	deps := dependencies(t, module+"cmd/shim")
	for _, heavy := range []string{"net/http", "crypto/tls", "crypto/x509", "regexp"} {
		assert.NotContains(t, deps, heavy, "cmd/shim")
	}
	for _, d := range deps {
		assert.True(t, standard(d) || strings.HasPrefix(d, module) || strings.HasPrefix(d, "golang.org/x/sys/"), "cmd/shim links %s", d)
	}
}

// The agent links package api, so each gated pod pays for the size of that package.
func TestPackageAPIImportsOnlyTheStandardLibrary(t *testing.T) {
	for _, d := range dependencies(t, module+"api") {
		assert.True(t, standard(d), "api imports %s", d)
	}
}

// Packages claim, lease, turn and leave only decide. These packages take the time as an argument
// and do no I/O, so a simulation and a fuzz test can drive them. Of this project's packages, they
// import at most packages api and instant. Package claim also imports packages lease and pace.
func TestPackagesThatDecideNeverImportIOPackages(t *testing.T) {
	for core, allowed := range map[string][]string{
		"agent/lease": {"api"},
		"agent/claim": {"api", "agent/instant", "agent/lease", "agent/pace"},
		"agent/turn":  {"api", "agent/instant"},
		"agent/leave": {"api", "agent/instant"},
	} {
		for _, d := range dependencies(t, module+core) {
			assert.True(t, standard(d) || slices.Contains(allowed, strings.TrimPrefix(d, module)), "%s imports %s", core, d)
			for _, io := range []string{"net", "net/http", "log/slog", "context", "os/exec", "math/rand", "math/rand/v2"} {
				assert.NotEqual(t, io, d, "%s reaches %s", core, d)
			}
		}
	}
}

// Package proof decides about deaths by reports alone. Package proof knows no Lease and
// sends no request, so a test can list the reports in a table.
func TestPackageProofImportsNeitherLeaseNorKube(t *testing.T) {
	for _, d := range dependencies(t, module+"agent/proof") {
		assert.NotEqual(t, module+"agent/kube", d)
		assert.NotEqual(t, module+"agent/lease", d)
	}
}

// Package show makes the pod's status from plain values, and can neither begin nor end a hold.
func TestPackageShowImportsNoPackageThatDecides(t *testing.T) {
	for _, decides := range []string{"agent/claim", "agent/proof", "agent/desk", "agent/turn", "agent/leave"} {
		assert.NotContains(t, dependencies(t, module+"agent/show"), module+decides)
	}
}

// A forwarder moves bytes to an address, and knows no slot. So nothing that a client
// sends can change a decision about a slot.
func TestForwarderImportsOnlyPackageAddresses(t *testing.T) {
	for _, d := range dependencies(t, module+"agent/forward") {
		assert.True(t, !strings.HasPrefix(d, module) || d == module+"api/addresses", "agent/forward imports %s", d)
	}
}

// Webhook and agent judge addresses by the same package, and each gated pod pays for its size.
func TestPackageAddressesImportsOnlyAddressTypes(t *testing.T) {
	for _, d := range dependencies(t, module+"api/addresses") {
		assert.True(t, standard(d), "api/addresses imports %s", d)
		assert.NotEqual(t, "net", d, "api/addresses imports %s", d)
	}
}

// Package probe knows neither Leases nor grants. Whatever a probe answers, only the agent's loop
// begins or ends a hold.
func TestPackageProbeImportsOnlyPackageAPI(t *testing.T) {
	for _, d := range dependencies(t, module+"agent/probe") {
		assert.True(t, standard(d) || d == module+"api", "agent/probe imports %s", d)
	}
}

// Package "after" waits for conditions without the agent's loop. The package knows neither grants
// nor children. So a condition can never begin or end a hold.
func TestPackageOfConditionsImportsOnlyAPIAndKube(t *testing.T) {
	for _, d := range dependencies(t, module+"agent/after") {
		assert.True(t, standard(d) || d == module+"api" || d == module+"agent/kube", "agent/after imports %s", d)
	}
}

// The wait at a barrier runs without the agent's loop. No hold depends on an arrival, so package
// barrier needs no claim.
func TestPackageBarrierImportsOnlyAPIKubeAndConditions(t *testing.T) {
	allowed := []string{"api", "agent/kube", "agent/after"}
	for _, d := range dependencies(t, module+"agent/barrier") {
		assert.True(t, standard(d) || slices.Contains(allowed, strings.TrimPrefix(d, module)), "agent/barrier imports %s", d)
	}
}

// Package variable receives the lock and the token of a hold through a function. So the package
// knows no claim and no hold, and cannot make up a token.
func TestPackageVariableImportsOnlyAPIAndKube(t *testing.T) {
	for _, d := range dependencies(t, module+"agent/variable") {
		assert.True(t, standard(d) || d == module+"api" || d == module+"agent/kube", "agent/variable imports %s", d)
	}
}

// Package courier sends the requests of a claim. Packages agent and local both use package
// courier, so they write Leases by the same code.
func TestPackageCourierImportsOnlyAllowedPackages(t *testing.T) {
	allowed := []string{"api", "agent/claim", "agent/instant", "agent/kube", "agent/lease", "agent/pace"}
	for _, d := range dependencies(t, module+"agent/courier") {
		assert.True(t, standard(d) || slices.Contains(allowed, strings.TrimPrefix(d, module)), "agent/courier imports %s", d)
	}
}

// Only package agent combines the proofs of death with the states of Leases. So the packages of
// the gate conclude no death from a Lease, and package lease concludes nothing from the gate.
func TestPackagesLeaseAndGateNeverImportEachOther(t *testing.T) {
	ends := []string{module + "agent/gate", module + "agent/desk", module + "agent/shim", module + "agent/host"}
	for _, end := range ends {
		assert.NotContains(t, dependencies(t, module+"agent/lease"), end)
		assert.NotContains(t, dependencies(t, end), module+"agent/lease")
	}
	assert.NotContains(t, dependencies(t, module+"agent/claim"), module+"agent/proof")
}

// Package gate is the contract of desk and shim, and consists of data. The simulation
// can run both ends because package gate uses neither network nor processes.
func TestPackageGateImportsOnlyTheStandardLibrary(t *testing.T) {
	for _, d := range dependencies(t, module+"agent/gate") {
		assert.True(t, standard(d), "agent/gate imports %s", d)
		for _, io := range []string{"net", "os/exec", "os/signal"} {
			assert.NotEqual(t, io, d, "agent/gate reaches %s", d)
		}
	}
}

// Desk and shim share only packages gate, host and api. If desk imported shim, or shim imported
// desk, a call could bypass the connection between them.
func TestDeskAndShimDoNotImportEachOther(t *testing.T) {
	for _, end := range []string{"agent/desk", "agent/shim"} {
		for _, d := range dependencies(t, module+end) {
			ours := []string{module + "agent/gate", module + "agent/host", module + "api"}
			assert.True(t, standard(d) || !strings.HasPrefix(d, module) || slices.Contains(ours, d), "%s imports %s", end, d)
		}
	}
}

// Package host knows no slot, no grant and no child, so package host decides nothing. The calls of
// package quiet are mere system calls.
func TestPackageHostImportsOnlySystemCalls(t *testing.T) {
	for _, d := range dependencies(t, module+"agent/host") {
		assert.True(t, standard(d) || strings.HasPrefix(d, "golang.org/x/sys/"), "agent/host imports %s", d)
	}
	for _, d := range dependencies(t, module+"agent/quiet") {
		assert.True(t, standard(d), "agent/quiet imports %s", d)
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
