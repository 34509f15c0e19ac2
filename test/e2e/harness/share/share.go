// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package share divides the end-to-end tests between clusters. A share has the tests that run on
// one cluster. Each test is in exactly one of the shares.
package share

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// long maps each test that takes more than half a minute to its duration in seconds. The durations are
// those of a test while two other clusters run their tests. Without these figures one cluster would
// still run the longest test while the others are idle.
var long = map[string]int{
	"TestHelmCommandsNeverStopARunningApplication":        150,
	"TestClusterAlertsFireUntilFaultsAreRepaired":         140,
	"TestWebhookOutageBlocksOnlyNewAnnotatedObjects":      135,
	"TestApplicationSurvivesTheOutageOfItsFailsafe":       110,
	"TestRecoverCommandRaisesTokensAfterARestore":         100,
	"TestRolloutAndHandoverNeedNoWebhook":                 85,
	"TestUninstallationKeepsDoneKeysAndVariables":         65,
	"TestSemaphoreLetsThreeOfFivePodsRun":                 65,
	"TestApplicationSurvivesAControlPlaneRestart":         60,
	"TestPodGateStopsApplicationOnADisconnectedNode":      55,
	"TestStartLockLetsPodsStartOneByOne":                  55,
	"TestRestoredEtcdKeepsSlotsExclusive":                 50,
	"TestNewShardCountTakesEffectDespiteDisconnectedNode": 50,
}

// alone has the serial tests that fail while the machine has other load, such as the tests of
// another cluster. These tests run on the cluster of the share "parallel", before its parallel
// tests.
var alone = []string{
	"TestConnectionsAreNeverRefusedDuringAHandover", "TestNodeThatLearnsLateCausesNoReset",
	"TestHolderDeletedWithMinimalGraceReleasesTheSlot", "TestRenewalsArePunctualWhileAnotherAccountFloodsTheAPIServer",
}

// seconds returns the approximate duration of a serial test in seconds.
func seconds(test string) int {
	const usual = 30
	return max(usual, long[test])
}

// Outside returns the tests that are outside of a share. The share I/N has the serial tests of
// cluster I among N clusters. The share named "parallel" has the parallel tests, and the serial
// tests in the variable "alone". The share named "commit" has the tests of make test. The empty share has
// all tests. Every other share is an error.
func Outside(share string, serial, parallel []string) (tests []string, err error) {
	shared := slices.DeleteFunc(slices.Clone(serial), func(name string) bool { return slices.Contains(alone, name) })
	switch share {
	case "":
		return nil, nil
	case "commit":
		return slices.DeleteFunc(slices.Concat(serial, parallel), func(name string) bool { return commit[name].shows != "" }), nil
	case "parallel":
		return shared, nil
	}
	first, last, _ := strings.Cut(share, "/")
	own, _ := strconv.Atoi(first)
	all, _ := strconv.Atoi(last)
	if own < 1 || own > all {
		return nil, fmt.Errorf("-share %q: write commit, parallel, or two numbers such as 2/3, of which the first is at most the second", share)
	}
	return slices.Concat(parallel, alone, others(shared, own-1, all)), nil
}

// others divides the serial tests between the clusters, the longest test first. Each test goes to
// the cluster with the fewest seconds so far. The result has the tests of all clusters except the
// cluster with the number "own".
func others(serial []string, own, all int) (tests []string) {
	sum := make([]int, all)
	falling := slices.SortedStableFunc(slices.Values(serial), func(a, b string) int { return seconds(b) - seconds(a) })
	for _, name := range falling {
		least := slices.Index(sum, slices.Min(sum))
		sum[least] += seconds(name)
		if least != own {
			tests = append(tests, name)
		}
	}
	return tests
}

// commit has the tests of make test: one for each guarantee, claim, gate and command of which a real cluster
// shows most. The seconds are those that make e2e printed while five of them ran at once on two processors. Tests
// that fail under other load have no place here, because the simulation runs beside.
var commit = map[string]struct {
	seconds int
	shows   string
}{
	"TestApplicationStaysExclusiveDespiteDeletionsAndKills": {67, "guarantees 1 and 11, singleton"},
	"TestChildOnDisconnectedNodeDiesBeforeTakeover":         {52, "guarantee 2"},
	"TestShimDrainsByDeadlineWhileAgentIsFrozen":            {29, "guarantee 3"},
	"TestAgentNeverReleasesWhileTheShimIsFrozen":            {39, "guarantee 4"},
	"TestRecreatedLeaseStaysUnavailableForALeaseDuration":   {19, "guarantee 5"},
	"TestHoldSurvivesOnlyShortAPIServerOutages":             {26, "guarantee 6"},
	"TestStandbyTakesOverFromACrashingHolder":               {32, "guarantee 7"},
	"TestLockIsExclusiveAmongDifferentTypesOfWorkloads":     {52, "guarantee 8, lock"},
	"TestEachPolicyIsInForce":                               {3, "guarantee 9"},
	"TestUnannotatedPodsStayUnchanged":                      {1, "guarantee 9"},
	"TestPodsAccountHasOnlyTheAgentsRights":                 {15, "guarantees 10 and 13"},
	"TestContainerReturnsTheChildsExitCode":                 {36, "guarantee 12"},
	"TestGateKeepsNginxExclusiveAndUnchanged":               {64, "guarantee 12, a program that people run"},
	"TestPodGateRestartsOnlyTheKilledContainer":             {67, "guarantee 14, gate: pod"},
	"TestReadinessGateLetsOnePodServe":                      {25, "guarantee 15, gate: readiness"},
	"TestWebhookAccountHasOnlyTheRightsOfEnroll":            {7, "guarantee 17"},
	"TestLicenceExampleRunsThreeTasksAtMost":                {153, "guarantee 18, semaphore"},
	"TestKubectlPluginHandsOverAndPausesASlot":              {88, "guarantee 19, yield, pause, resume"},
	"TestStalledRolloutKeepsTheRemainingOldPods":            {61, "guarantee 20"},
	"TestEvictionOfTheHolderCausesOneHandover":              {52, "guarantee 21"},
	"TestJobSkipsWorkOnlyIfHolderIsAlive":                   {67, "guarantee 22"},
	"TestInitContainerCompletesWorkOfAKeyOnce":              {70, "guarantee 23, once"},
	"TestPodStartsAfterTheAwaitedKeyIsDone":                 {54, "guarantee 24, after"},
	"TestPodsOfAJobStartTogether":                           {78, "guarantee 29, barrier"},
	"TestEachShardOfAJobSucceedsOnce":                       {94, "guarantees 28 and 30, shards"},
	"TestWarmupExampleStartsOneReplicaAtATime":              {178, "guarantee 26, start-lock"},
	"TestElectionLetsProgramsLeadOneByOne":                  {58, "guarantee 25, api"},
	"TestVariableRefusesLateWriteWithSmallerToken":          {1, "guarantee 27, variables"},
	"TestCheckCommandReportsAPolicyThatDeniesNothing":       {18, "check"},
	"TestPersonsCommandWaitsForPodsAndOtherPeople":          {84, "hold"},
	"TestConsoleShowsTheCauseOfAHandover":                   {70, "console, explain"},
}

// Soak has the tests that the shares leave out, because they prove a promise for a second time, or need
// minutes for one case. Each value says where the promise is shown without it.
var Soak = map[string]string{
	"TestClusterAlertsFireUntilFaultsAreRepaired":               "monitoring: promtool tests of each rule",
	"TestWorkloadAlertsFireUntilFaultsAreRepaired":              "monitoring: promtool tests of each rule",
	"TestRecoverCommandRaisesTokensAfterARestore":               "cmd/kubectl-metaparticle: tests of recover",
	"TestHelmUpgradesToAReleaseAndRollsBack":                    "TestHelmCommandsNeverStopARunningApplication, tools/release: its tests",
	"TestLeaderExampleRunsOneWorkerAndThreeServers":             "TestReadinessGateLetsOnePodServe",
	"TestWordcountExampleCountsExactlyDespiteDeletionsAndKills": "TestEachShardOfAJobSucceedsOnce",
	"TestSingletonRollsOutUnderLoadWithoutAFailedRequest":       "TestConnectionsAreNeverRefusedDuringAHandover",
	"TestAutoscalersAverageOmitsUnreadyStandbys":                "TestAutoscalersAverageIncludesIdleStandbys",
	"TestSlotReturnsWithACrashedNode":                           "TestPreferredPodGetsTheSlotBack",
	"TestSupportersKeepNoSlotFromACutOffHolder":                 "TestApplicationSurvivesTheOutageOfItsFailsafe, sim: its story of supporters",
	"TestHundredConnectionsToLocalAPICostFewMegabytes":          "agent/local: tests of its bounds",
}
