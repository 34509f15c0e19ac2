// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package software

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestEachFaultMeetsOneApplicationInMakeTest(t *testing.T) {
	var names []string
	for _, f := range (&Trial{}).ends() {
		names = append(names, f.Name)
	}
	assert.ElementsMatch(t, names, slices.Concat(slices.Collect(maps.Values(faults))...))
}
