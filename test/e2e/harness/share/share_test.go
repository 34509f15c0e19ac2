// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/share"
)

var serial, parallel = []string{"a", "b", "c", "d", "e"}, []string{"x", "y"}

func TestClustersDivideEndToEndTestsWithoutOverlap(t *testing.T) {
	for all := 1; all <= 6; all++ {
		shares := []string{"parallel"}
		for own := 1; own <= all; own++ {
			shares = append(shares, fmt.Sprintf("%d/%d", own, all))
		}
		count := map[string]int{}
		for _, text := range shares {
			outside, err := share.Outside(text, serial, parallel)
			require.NoError(t, err)
			for _, name := range slices.Concat(serial, parallel) {
				if !slices.Contains(outside, name) {
					count[name]++
				}
			}
		}
		assert.Equal(t, map[string]int{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "x": 1, "y": 1}, count, "%d clusters", all)
	}
	outside, err := share.Outside("", serial, parallel)
	require.NoError(t, err)
	assert.Empty(t, outside, "the empty share has all tests")
}

// sensitive has the tests that fail while the machine has other load.
var sensitive = []string{
	"TestConnectionsAreNeverRefusedDuringAHandover", "TestNodeThatLearnsLateCausesNoReset",
	"TestHolderDeletedWithMinimalGraceReleasesTheSlot", "TestRenewalsArePunctualWhileAnotherAccountFloodsTheAPIServer",
}

func TestClusterOfParallelTestsRunsTheSensitiveTests(t *testing.T) {
	names := append([]string{"a"}, sensitive...)
	outside, err := share.Outside("parallel", names, parallel)
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, outside)
	outside, err = share.Outside("1/1", names, parallel)
	require.NoError(t, err)
	assert.ElementsMatch(t, slices.Concat(sensitive, parallel), outside)
}

func TestShareOfMakeTestHasItsListAlone(t *testing.T) {
	outside, err := share.Outside("commit", []string{"a", "TestChildOnDisconnectedNodeDiesBeforeTakeover"}, []string{"x", "TestEachPolicyIsInForce"})
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "x"}, outside)
}

func TestMalformedFractionForSelectingTestsIsRefused(t *testing.T) {
	for _, text := range []string{"0/3", "4/3", "1", "1/", "1/3/5", "2/3x", "serial", "-1/3"} {
		_, err := share.Outside(text, serial, parallel)
		assert.ErrorContains(t, err, "two numbers such as 2/3", text)
	}
}

func TestClusterWithALongTestGetsFewerTests(t *testing.T) {
	names := []string{"a", "b", "TestHelmCommandsNeverStopARunningApplication", "c", "d"}
	outside, err := share.Outside("1/2", names, parallel)
	require.NoError(t, err)
	assert.ElementsMatch(t, slices.Concat(sensitive, []string{"a", "b", "c", "d"}, parallel), outside)
}
