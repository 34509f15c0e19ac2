// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRestartedAgentIsNotItsPodsFirstProcess(t *testing.T) {
	dir := t.TempDir()
	assert.True(t, firstProcess(dir))
	assert.False(t, firstProcess(dir))
	assert.False(t, firstProcess(dir+"/missing"), "without the directory nothing is known")
}
