// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestServingTimeBeforeAcquisitionBelongsToEarlierHold(t *testing.T) {
	acquired := time.Date(2026, 3, 1, 12, 0, 7, 500_000_000, time.UTC)
	for serving, in := range map[string]bool{
		"2026-03-01T12:00:08Z": true, "2026-03-01T12:00:07.5Z": true, "2026-03-01T12:00:07Z": true,
		"2026-03-01T12:00:06.9Z": false, "": false, "x": false,
	} {
		assert.Equal(t, in, ServesInHold(serving, acquired), serving)
	}
	assert.False(t, ServesInHold("2026-03-01T12:00:07Z", time.Time{}))
}
