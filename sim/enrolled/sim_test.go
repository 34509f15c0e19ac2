// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enrolled

import (
	"os"
	"testing"
	"time"

	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/sim/play"
	"github.com/metaparticle-io/metaparticle/sim/story"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

func TestMain(m *testing.M) {
	play.SaveProcessorTime()
	os.Exit(m.Run())
}

func TestSimulationBreaksNoInvariant(t *testing.T) { play.Seeds(t, realEnroll, story.Simulation) }

func TestRolloutsBreakNoInvariant(t *testing.T) { play.Seeds(t, realEnroll, story.Rollouts) }

func TestOutagesBreakNoInvariant(t *testing.T) { play.Seeds(t, realEnroll, story.Outages) }

func TestOnceClaimsBreakNoInvariant(t *testing.T) { play.Seeds(t, realEnroll, story.Works) }

func TestShardsBreakNoInvariant(t *testing.T) { play.Seeds(t, realEnroll, story.Shards) }

func TestShardsOfJobsBreakNoInvariant(t *testing.T) { play.Seeds(t, realEnroll, story.Maps) }

// In each of the stories below, enroll makes the Leases and Roles, and then has little to do. So for
// each seed one story of each test is enough.

func TestProgramsOfTheLocalAPIBreakNoInvariant(t *testing.T) {
	play.Seeds(t, realEnroll, story.Programs, story.Readers, story.Joints, story.Leashed)
}

func TestBarriersBreakNoInvariant(t *testing.T) {
	play.Seeds(t, realEnroll, story.Barriers, story.Meetings)
}

func TestJobsStartLocksAndRestoresBreakNoInvariant(t *testing.T) {
	play.Seeds(t, realEnroll, story.Jobs, story.Starts, story.Restores)
}

func TestSlowDisksBreakNoInvariant(t *testing.T) { play.Seeds(t, realEnroll, story.Stalled) }

func TestPlantedBugsAreCaught(t *testing.T) { play.Planted(t) }

// realEnroll returns an enroll.Reconciler whose requests go through the world's network.
func realEnroll(e *world.Enroller) world.Reconciler {
	return &enroll.Reconciler{Client: &kubeClient{to: e, cached: true}, Reader: &kubeClient{to: e}, Now: time.Now}
}

// `make unit` runs this test, so a developer notices a plant without its source before the simulation.
func TestPlantedBugsQuoteTodaysSource(t *testing.T) { play.PlantsFit(t) }
