// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestEachFeatureHasItsOwnFile(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range features {
		assert.False(t, seen[f.name], f.name)
		seen[f.name] = true
		assert.FileExists(t, f.name+".go")
		assert.True(t, f.judge != nil || f.judgeContainer != nil || f.warn != nil || f.patch != nil, "%s does something", f.name)
	}
}

func TestFeaturesPatchContainersBeforeTheSidecarIsAdded(t *testing.T) {
	at := map[string]int{}
	for i, f := range features {
		at[f.name] = i
	}
	for _, byIndex := range []string{"probes", "volumes", "hooks", "shims"} {
		assert.Less(t, at[byIndex], at["sidecar"], byIndex)
	}
}
