// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pace_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/pace"
)

func TestBurstThenOneActionInEachPeriod(t *testing.T) {
	const busy = 5 * time.Second
	p := pace.Pace{Every: 2 * time.Second, Burst: 3}
	var within int
	for now := time.Duration(0); now < busy; now += time.Millisecond {
		if p.TrySpend(now) {
			within++
		}
	}
	assert.Equal(t, 3+2, within, "three at once, then one after 2 s and one after 4 s")
	assert.False(t, p.TrySpend(p.NextAt()-1))
	assert.True(t, p.TrySpend(p.NextAt()))
}

func TestBurstIsFullAgainAfterARest(t *testing.T) {
	p := pace.Pace{Every: time.Second, Burst: 3}
	for range 3 {
		assert.True(t, p.TrySpend(0))
	}
	assert.False(t, p.TrySpend(0))
	const rest = time.Hour
	for range 3 {
		assert.True(t, p.TrySpend(rest))
	}
	assert.False(t, p.TrySpend(rest), "a long rest permits no larger burst")
}

func TestActionBeyondTheBoundsDelaysTheNext(t *testing.T) {
	p := pace.Pace{Every: time.Second, Burst: 1}
	p.Spend(0)
	p.Spend(0)
	assert.Equal(t, 2*time.Second, p.NextAt())
}
