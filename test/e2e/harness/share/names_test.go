// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package share

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The lists of this package contain names of tests. The check fails if a list contains a name that
// no test has.
func TestScheduleNamesOnlyExistingEndToEndTests(t *testing.T) {
	text, err := os.ReadFile("../../e2e_test.go")
	require.NoError(t, err)
	var names []string
	for _, match := range regexp.MustCompile(`(?m)^\t"(Test\w+)",$`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, match[1])
	}
	assert.Subset(t, names, slices.Collect(maps.Keys(long)))
	assert.Subset(t, names, alone)
	assert.Subset(t, names, slices.Collect(maps.Keys(Soak)))
	assert.Subset(t, names, slices.Collect(maps.Keys(commit)))
	for _, name := range alone {
		assert.NotContains(t, commit, name, "fails beside the simulation")
	}
}

// Five parallel tests run at once.
func TestEndToEndTestsOfMakeTestTakeEightMinutesAtMost(t *testing.T) {
	text, err := os.ReadFile("../../e2e_test.go")
	require.NoError(t, err)
	serial, parallel, found := strings.Cut(string(text), "\nvar parallel = ")
	require.True(t, found)
	var sum, beside int
	for name, of := range commit {
		if line := "\t\"" + name + "\",\n"; strings.Contains(serial, line) {
			sum += of.seconds
		} else if assert.Contains(t, parallel, line) {
			beside += of.seconds
		}
	}
	assert.LessOrEqual(t, sum+beside/5, 480)
}
