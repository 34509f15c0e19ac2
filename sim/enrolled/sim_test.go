// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enrolled

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/sim/play"
	"github.com/metaparticle-io/metaparticle/sim/story"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

func TestMain(m *testing.M) {
	play.SaveProcessorTime()
	os.Exit(m.Run())
}

func TestSimulationBreaksNoInvariant(t *testing.T) { play.Seeds(t, realEnroll) }

func TestRolloutsBreakNoInvariant(t *testing.T) { play.Rollouts(t, realEnroll) }

func TestOnceClaimsBreakNoInvariant(t *testing.T) { play.Works(t, realEnroll) }

func TestShardsBreakNoInvariant(t *testing.T) { play.Shards(t, realEnroll) }

func TestShardsOfJobsBreakNoInvariant(t *testing.T) { play.Maps(t, realEnroll) }

// In each of the stories below, enroll makes the Leases and Roles, and then has little to do. So for
// each seed one story of each test is enough.

func TestProgramsOfTheLocalAPIBreakNoInvariant(t *testing.T) {
	play.OneOf(t, realEnroll, story.PlayPrograms, story.PlayReaders, story.PlayJoints, story.PlayLeashed)
}

func TestBarriersBreakNoInvariant(t *testing.T) {
	play.OneOf(t, realEnroll, story.PlayBarriers, story.PlayMeetings)
}

func TestJobsStartLocksAndRestoresBreakNoInvariant(t *testing.T) {
	play.OneOf(t, realEnroll, story.PlayJobs, story.PlayStarts, story.PlayRestores)
}

func TestSlowDisksBreakNoInvariant(t *testing.T) { play.Stalled(t, realEnroll) }

func TestPlantedBugsAreCaught(t *testing.T) { play.Planted(t) }

// realEnroll returns an enroll.Reconciler whose requests go through the world's network.
func realEnroll(e *world.Enroller) world.Reconciler {
	return &enroll.Reconciler{Client: &kubeClient{to: e, cached: true}, Reader: &kubeClient{to: e}, Now: time.Now}
}

// Package world repeats three names of package enroll, because world must not link enroll.
func TestNamesCopiedIntoSimulationEqualThoseOfEnroll(t *testing.T) {
	assert.Equal(t, enroll.Unknown, world.Unknown)
	assert.Equal(t, enroll.RoleName("default"), world.RoleName)
	assert.Equal(t, enroll.ConditionRoleName("default"), world.ConditionRoleName)
}

// `make unit` runs this test, so a developer notices a plant without its source before the simulation.
func TestPlantedBugsQuoteTodaysSource(t *testing.T) { play.PlantsFit(t) }
