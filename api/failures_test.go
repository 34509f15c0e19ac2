// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestEachFailureOfKeyDoublesItsRetryDelay(t *testing.T) {
	f := Failures("8 3")
	assert.Zero(t, f.Delay("7"))
	for n, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		f = f.With("7")
		assert.Equal(t, Failures(fmt.Sprintf("8 3,7 %d", n+1)), f)
		assert.Equal(t, want, f.Delay("7"))
		assert.Equal(t, 40*time.Second, f.Delay("8"), "each key has a count of its own")
		assert.Equal(t, f, f.With(""))
	}
	assert.Equal(t, []string{"8", "7"}, f.Keys())
	assert.Equal(t, Failures("8 3"), f.Without("7"))
	assert.Equal(t, Failures(""), Failures("8 3").Without("8"))
	assert.Equal(t, Failures("7 1000000"), Failures("7 1000000").With("7"))
	assert.Equal(t, 5*time.Minute, Failures("7 1000000").Delay("7"))
	for i := range 20 {
		f = f.With(fmt.Sprint("k", i))
	}
	assert.Len(t, f.Keys(), MostFailing)
	assert.Equal(t, 1, f.Count("k19"))
}

func TestMalformedFailuresAnnotationCausesNoDelay(t *testing.T) {
	for _, text := range []string{"", "7", "7 ", "7 0", "7 -1", "7 x", " 1", "7  1", "-7 1", "7 1 1", strings.Repeat("k", 64) + " 1", ",,", "7 x,8 y"} {
		f := Failures(text)
		for _, key := range []string{"", "7", "8", "-7", strings.Repeat("k", 64)} {
			assert.Zero(t, f.Delay(key), text)
		}
		assert.Equal(t, Failures("9 1"), f.With("9"), "%q is dropped with the next failure", text)
	}
}
