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
	"github.com/metaparticle-io/metaparticle/sim/world"
)

func TestMain(m *testing.M) {
	play.UseOneProcessor()
	os.Exit(m.Run())
}

func TestSimulationBreaksNoInvariant(t *testing.T) { play.Seeds(t, world.ModelOfEnroll) }

func TestRolloutsBreakNoInvariant(t *testing.T) { play.Rollouts(t, world.ModelOfEnroll) }

func TestJobsBreakNoInvariant(t *testing.T) { play.Jobs(t, world.ModelOfEnroll) }

func TestOnceClaimsBreakNoInvariant(t *testing.T) { play.Works(t, world.ModelOfEnroll) }

func TestShardsBreakNoInvariant(t *testing.T) { play.Shards(t, world.ModelOfEnroll) }

func TestShardsOfJobsBreakNoInvariant(t *testing.T) { play.Maps(t, world.ModelOfEnroll) }

func TestProgramsBreakNoInvariant(t *testing.T) { play.Programs(t, world.ModelOfEnroll) }

func TestReadWriteLocksBreakNoInvariant(t *testing.T) { play.Readers(t, world.ModelOfEnroll) }

func TestCallsForSeveralClaimsBreakNoInvariant(t *testing.T) { play.Joints(t, world.ModelOfEnroll) }

func TestStartLocksBreakNoInvariant(t *testing.T) { play.Starts(t, world.ModelOfEnroll) }

func TestBarriersBreakNoInvariant(t *testing.T) { play.Barriers(t, world.ModelOfEnroll) }

func TestBarriersOfProgramsBreakNoInvariant(t *testing.T) { play.Meetings(t, world.ModelOfEnroll) }

func TestRestoresBreakNoInvariant(t *testing.T) { play.Restores(t, world.ModelOfEnroll) }

func TestPlantedBugsAreCaught(t *testing.T) { play.Planted(t) }

// The random schedules in the tests of agent/claim catch these bugs, because the bugs are
// in pure packages.
func TestRandomClaimSchedulesCatchPlantedBugs(t *testing.T) {
	play.PlantedClaims(t, "boot-id-always-proof", "deadline-from-the-answer", "deadline-from-the-last-attempt", "equal-bytes",
		"from-renew-time", "giving-up", "gone-is-free", "identity-is-proof", "latest-deadline",
		"margin-of-a-tenth", "no-margin", "own-duration",
		"paused-taken", "polling", "read-makes-pauses-short", "stands-aside-for-ever")
}

// The tests of agent/claim catch these bugs. In the simulation a watch is seldom silent while a
// writer of a short lease waits for a reader of a long one.
func TestPlantedBugsAreCaughtByClaimTests(t *testing.T) { play.PlantedIn(t, "agent/claim") }

// The tests of agent/local catch these bugs. In the simulation all faults end, so each wait ends,
// too.
func TestPlantedBugsAreCaughtByLocalTests(t *testing.T) { play.PlantedIn(t, "agent/local") }

// The tests of agent/turn catch these bugs. The simulation seldom catches these bugs,
// because it seldom deletes a holder while a pod asks for its turn.
func TestPlantedBugsAreCaughtByTurnTests(t *testing.T) { play.PlantedIn(t, "agent/turn") }

func TestPlantedBugsAreCaughtByDeskTests(t *testing.T) { play.PlantedIn(t, "agent/desk") }

// The tests of enroll/stamp catch these bugs. The simulation seldom reaches the state that shows
// these bugs. In that state a shard is beyond the new number, its holder is out of reach, and its
// Lease is gone.
func TestPlantedBugsAreCaughtByStampTests(t *testing.T) { play.PlantedIn(t, "enroll/stamp") }

// The tests of agent/after catch these bugs. In the simulated stories with conditions no person
// writes a Lease, no key is forgotten, and each new Lease has another UID.
func TestPlantedBugsAreCaughtByAfterTests(t *testing.T) { play.PlantedIn(t, "agent/after") }

// The tests of agent/barrier catch these bugs. In the simulation no person writes the Lease of a pod
// that waits. The simulation allows each wait more time than passes between two reads.
func TestPlantedBugsAreCaughtByBarrierTests(t *testing.T) { play.PlantedIn(t, "agent/barrier") }

// The tests of agent/lease catch these bugs. In the simulation each restore raises the revision, so no
// version comes again.
func TestPlantedBugsAreCaughtByLeaseTests(t *testing.T) { play.PlantedIn(t, "agent/lease") }

// The tests of agent/variable catch these bugs. In the simulation few calls wait at one instant, and
// the Variable has room for all keys.
func TestPlantedBugsAreCaughtByVariableTests(t *testing.T) { play.PlantedIn(t, "agent/variable") }

// The package compiles in less than a minute without the libraries of Kubernetes, and
// in four minutes with them.
func TestSimLinksNoKubernetesLibrary(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-test", ".").Output()
	require.NoError(t, err)
	for d := range strings.FieldsSeq(string(out)) {
		assert.False(t, strings.HasPrefix(d, "k8s.io/") || strings.HasPrefix(d, "sigs.k8s.io/"), "sim links %s", d)
	}
}
