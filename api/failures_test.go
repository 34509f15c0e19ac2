// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestDelayDoublesWithEachFailureOfAKey(t *testing.T) {
	var f Failures
	assert.Empty(t, f.String())
	assert.Zero(t, f.Delay("7"))
	for n, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		f = f.With("7")
		assert.Equal(t, Failures{Key: "7", Count: n + 1}, f)
		assert.Equal(t, want, f.Delay("7"))
		assert.Zero(t, f.Delay("8"))
		assert.Equal(t, f, f.With(""))
		assert.Equal(t, f, ParseFailures(f.String()))
	}
	assert.Equal(t, Failures{Key: "8", Count: 1}, f.With("8"))
	most := Failures{Key: "7", Count: mostFailures}
	assert.Equal(t, most, most.With("7"))
	assert.Equal(t, 5*time.Minute, most.Delay("7"))
}

func TestMalformedFailuresDelayNothing(t *testing.T) {
	for _, text := range []string{"", "7", "7 ", "7 0", "7 -1", "7 x", " 1", "7  1", "-7 1", "7 1 1", "7 99999999", strings.Repeat("k", 64) + " 1"} {
		assert.Zero(t, ParseFailures(text), text)
	}
}
