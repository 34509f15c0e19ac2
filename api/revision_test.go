// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRevisionSurvivesARoundTrip(t *testing.T) {
	for _, r := range []Revision{{}, {"a-1", 1, "5d4f"}, {"a-1", 12, "web-5d4f"}} {
		back, err := ParseRevision(r.String())
		require.NoError(t, err)
		assert.Equal(t, r, back)
	}
	for _, text := range []string{"a", "a/b", "a/1", "a/0/h", "a/-1/h", "a/01/h", "a/+1/h", "a/1/", "/1/h", "a/1/h/x", "a/1/$(X)", "a/1/h\n"} {
		_, err := ParseRevision(text)
		assert.ErrorContains(t, err, "UID/NUMBER/HASH", text)
	}
}

func TestRevisionNumbersAreComparedOnlyWithinOneWorkload(t *testing.T) {
	a, b := Revision{"uid", 1, "a"}, Revision{"uid", 2, "b"}
	undone := Revision{"uid", 3, "a"} // an undo: the same template under a new number
	made := Revision{"new", 1, "b"}   // the workload was deleted and made anew

	assert.True(t, b.NewerThan(a))
	assert.False(t, a.NewerThan(b))
	assert.True(t, undone.NewerThan(b))
	assert.True(t, undone.Same(a))
	assert.False(t, undone.NewerThan(a), "the same template is the same revision")
	for _, other := range []Revision{a, b, {}} {
		assert.False(t, made.NewerThan(other))
		assert.False(t, other.NewerThan(made))
		assert.False(t, made.Same(other))
		assert.False(t, Revision{}.Same(other), "an unknown revision has no equal")
		assert.False(t, Revision{}.NewerThan(other))
	}
}
