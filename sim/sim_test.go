// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/sim/play"
	"github.com/metaparticle-io/metaparticle/sim/story"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

func TestMain(m *testing.M) {
	play.SaveProcessorTime()
	os.Exit(m.Run())
}

func TestSimulationBreaksNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Simulation)
}

func TestRolloutsBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Rollouts) }

func TestHangsBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Hangs) }

func TestOutagesBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Outages) }

func TestSupportersBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Supported)
}

func TestPreferencesBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Preferences)
}

func TestCandidatesThatDieBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Candidates)
}

func TestJobsBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Jobs) }

func TestOnceClaimsBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Works) }

func TestShardsBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Shards) }

func TestShardsOfJobsBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Maps) }

func TestProgramsBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Programs) }

func TestReadWriteLocksBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Readers)
}

func TestBidsForSeveralClaimsBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Joints)
}

func TestDisobedientProgramsBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Leashed)
}

func TestStartLocksBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Starts) }

func TestBarriersBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Barriers) }

func TestBarriersOfProgramsBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Meetings)
}

func TestRestoringAPIObjectsBreaksNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Restores)
}

func TestStrangeAnswersBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Strange)
}

func TestScarceResourcesBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Scarce)
}

func TestReplacedMachinesBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Replaced)
}

func TestLastingLatencyBreaksNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Lagging)
}

func TestSlowWritesBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Committing)
}

func TestSlowDisksBreakNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll, story.Stalled) }

func TestLabelsOnLeasesBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Relabelled)
}

func TestFaultsAtStoredWritesBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Ambushed)
}

func TestEditsOfLeasesBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Edited)
}

func TestForgedBootIDsBreakNoInvariant(t *testing.T) {
	play.Seeds(t, world.ModelOfEnroll, story.Forged)
}

func TestPlantedBugsAreCaught(t *testing.T) { play.Planted(t) }

// The bugs named below are in code that the tests of agent/elector also run. The random schedules of
// those tests must catch these bugs without package world.
func TestRandomSchedulesOfClaimsCatchPlantedBugs(t *testing.T) {
	play.PlantedClaims(t, "boot-id-always-proof", "deadline-from-the-answer", "deadline-from-the-last-attempt", "equal-bytes",
		"from-renew-time", "giving-up", "gone-is-free", "identity-is-proof", "latest-deadline",
		"margin-of-a-tenth", "no-margin", "own-duration",
		"paused-taken", "polling", "read-makes-pauses-short", "stands-aside-for-ever")
}

// The simulation seldom reaches the states that show these bugs, or has nothing that triggers them: no
// simulated client opens a connection, each fault ends, and each restore raises etcd's revision. So tests
// of other packages must catch them ("played by: PACKAGE/TEST").
func TestPlantedBugsAreCaughtInTheirPackages(t *testing.T) { play.PlantedInPackages(t) }

// Package sim compiles in less than a minute without the libraries of Kubernetes, and in four
// minutes with them.
func TestSimulationNeverImportsKubernetesLibraries(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-test", ".").Output()
	require.NoError(t, err)
	for d := range strings.FieldsSeq(string(out)) {
		assert.False(t, strings.HasPrefix(d, "k8s.io/") || strings.HasPrefix(d, "sigs.k8s.io/"), "sim links %s", d)
	}
}

// Stories and checks read what the API server stored and what processes did, so that they stay the same
// while the agent changes beneath them.
func TestStoriesAndChecksImportNoAgent(t *testing.T) {
	var files []string
	for _, of := range []string{"engine/*", "controller/*", "story/*", "world/*check", "world/excuse", "world/facts", "world/leases", "world/ledger", "world/waittimes"} {
		found, err := filepath.Glob(of + ".go")
		require.NoError(t, err)
		require.NotEmpty(t, found, of)
		files = append(files, found...)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range parsed.Imports {
			assert.NotContains(t, i.Path.Value, "/metaparticle/agent", file)
		}
	}
}

// `make unit` runs this test, so a developer notices a plant without its source before the simulation.
func TestPlantedBugsQuoteTodaysSource(t *testing.T) { play.PlantsFit(t) }
