// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLargestCountNeverMakesRolloutRecordUnreadable(t *testing.T) {
	r := Parse(fmt.Sprintf(`{"proven":%q,"turns":[{"revision":%q,"count":%d}]}`, old.String(), newer.String(), math.MaxInt64))
	require.Equal(t, old, r.Proven)
	again := Parse(r.counted(newer).String())
	assert.Equal(t, old, again.Proven)
	assert.Equal(t, mostTurns, again.of(newer).Count)
}
