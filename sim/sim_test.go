// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"os"
	"os/exec"
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

// The bugs named below are in code that the tests of agent/claim also run. The random schedules of
// those tests must catch these bugs without package world.
func TestRandomSchedulesOfClaimsCatchPlantedBugs(t *testing.T) {
	play.PlantedClaims(t, "boot-id-always-proof", "deadline-from-the-answer", "deadline-from-the-last-attempt", "equal-bytes",
		"from-renew-time", "giving-up", "gone-is-free", "identity-is-proof", "latest-deadline",
		"margin-of-a-tenth", "no-margin", "own-duration",
		"paused-taken", "polling", "read-makes-pauses-short", "stands-aside-for-ever")
}

// The test plants the bugs that belong to tests of agent/claim. The simulation seldom reaches the
// state that shows these bugs. In that state a watch is silent, and a writer waits for a reader.
// The lease duration of the writer is short, and that of the reader is long.
func TestPlantedBugsAreCaughtByClaimTests(t *testing.T) { play.PlantedIn(t, "agent/claim") }

// The test plants the bugs that belong to tests of agent/local. The simulation misses these bugs.
// For example, a bug may let a call wait for too long. But each fault of the simulation ends, and
// then each wait ends.
func TestPlantedBugsAreCaughtByLocalAPITests(t *testing.T) { play.PlantedIn(t, "agent/local") }

// The test plants the bugs that belong to tests of agent/leash. In the simulation no program joins
// the hold of an earlier program, and two holds of one program seldom end shortly after each other.
func TestPlantedBugsAreCaughtByLeashTests(t *testing.T) { play.PlantedIn(t, "agent/leash") }

// The test plants the bugs that belong to tests of agent/turn. The simulation seldom catches
// these bugs, because it seldom deletes a holder while another pod asks for a turn.
func TestPlantedBugsAreCaughtByTurnTests(t *testing.T) { play.PlantedIn(t, "agent/turn") }

func TestPlantedBugsAreCaughtByDeskTests(t *testing.T) { play.PlantedIn(t, "agent/gate") }

func TestPlantedBugsAreCaughtByShimTests(t *testing.T) { play.PlantedIn(t, "agent/shim") }

// The test plants the bugs that belong to tests of enroll/stamp. The simulation seldom reaches
// the state that shows these bugs. In that state the number of shards has become smaller. The
// holder of a surplus shard is out of reach, and the shard's Lease is gone.
func TestPlantedBugsAreCaughtByStampTests(t *testing.T) { play.PlantedIn(t, "enroll/stamp") }

// The test plants the bugs that belong to tests of agent/after. The simulation misses these bugs.
// In the stories with conditions no person writes a Lease, no key is forgotten, and each new Lease
// has a UID of its own.
func TestPlantedBugsAreCaughtByConditionTests(t *testing.T) { play.PlantedIn(t, "agent/after") }

// The test plants the bugs that belong to tests of agent/barrier. The simulation misses these
// bugs, because in the simulation nothing triggers them. No simulated person writes the Lease of a
// pod that waits at a barrier, for example.
func TestPlantedBugsAreCaughtByBarrierTests(t *testing.T) { play.PlantedIn(t, "agent/barrier") }

// The test plants the bugs that belong to tests of agent/lease. These bugs show only if two
// states of a Lease have the same resourceVersion. The simulation misses the bugs: each
// simulated restore raises etcd's revision, so no two states have the same resourceVersion.
func TestPlantedBugsAreCaughtByLeaseTests(t *testing.T) { play.PlantedIn(t, "agent/lease") }

// The test plants the bugs that belong to tests of agent/variable. The simulation misses these
// bugs, because few simulated calls wait at the same time, and each simulated Variable has room for
// all keys.
func TestPlantedBugsAreCaughtByVariableTests(t *testing.T) { play.PlantedIn(t, "agent/variable") }

// The test plants the bugs that belong to tests of package agent. The simulation misses these
// bugs, because no invariant of the simulation forbids that a deleted pod starts its
// application.
func TestPlantedBugsAreCaughtByAgentTests(t *testing.T) { play.PlantedIn(t, "agent") }

// Package sim compiles in less than a minute without the libraries of Kubernetes, and in four
// minutes with them.
func TestSimulationNeverImportsKubernetesLibraries(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-test", ".").Output()
	require.NoError(t, err)
	for d := range strings.FieldsSeq(string(out)) {
		assert.False(t, strings.HasPrefix(d, "k8s.io/") || strings.HasPrefix(d, "sigs.k8s.io/"), "sim links %s", d)
	}
}

// The test plants the bugs that belong to tests of agent/show. The simulation misses these bugs,
// because its writes of a pod's status delay no other request.
func TestPlantedBugsAreCaughtByStatusTests(t *testing.T) { play.PlantedIn(t, "agent/show") }

// The test plants the bugs that belong to tests of agent/forward. No simulated client opens a
// connection.
func TestPlantedBugsAreCaughtByForwarderTests(t *testing.T) { play.PlantedIn(t, "agent/forward") }

// `make unit` runs this test, so a developer notices a plant without its source before the simulation.
func TestPlantedBugsQuoteTodaysSource(t *testing.T) { play.PlantsFit(t) }
