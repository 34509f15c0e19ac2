// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shorter returns a write as the API server stores it if a webhook shortens the duration.
func shorter(r Record, version string) Record {
	r.Duration = 2 * time.Second
	return stored(r, version)
}

func TestShortenedDurationGivesNoDeadline(t *testing.T) {
	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", profile, wall)
	require.NoError(t, err)
	_, err = s.Begin(Attempt{Sent: at(100), Record: r}, shorter(r, "2"), "")
	require.ErrorIs(t, err, ErrShortened)

	h := held(t)
	attempt := h.Renew(at(106), wall, profile, nil)
	require.ErrorIs(t, h.Answered(attempt, shorter(attempt.Record, "3")), ErrShortened)
	require.ErrorIs(t, h.Read(shorter(attempt.Record, "3")), ErrShortened, "the answer is lost, and a read shows the renewal")
	assert.Equal(t, at(125), h.Deadline())
	assert.ErrorIs(t, ErrShortened, ErrLost, "the child gets no grace")
}

// A person may shorten the duration of a held Lease. The next renewal restores the duration.
func TestPersonMayShortenTheDurationOfAHold(t *testing.T) {
	h := held(t)
	require.NoError(t, h.Read(shorter(h.Record(), "3")))
	attempt := h.Renew(at(101), wall, profile, nil)
	require.NoError(t, h.Answered(attempt, stored(attempt.Record, "4")))
	assert.Equal(t, at(126), h.Deadline())
}
