// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package space

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestSlowChecksLengthenTheIntervalBetweenPolls(t *testing.T) {
	for name, c := range map[string]struct {
		check time.Duration
		most  int
	}{
		"fast":      {0, 1001},
		"kubectl":   {100 * time.Millisecond, 21},
		"very slow": {time.Second, 6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Space{T: t, change: make(chan struct{}, 1)}
				checks := 0
				assert.False(t, s.Within(10*time.Second, func() bool {
					checks++
					<-time.After(c.check)
					if c.check > 0 {
						s.Changed() // the pause after a slow check goes on despite a change
					}
					return false
				}))
				assert.InDelta(t, c.most, checks, 1)
			})
		})
	}
}

func TestChangeInTestNamespaceTriggersAnImmediateCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Space{T: t, change: make(chan struct{}, 1)}
		begin := time.Now()
		s.change <- struct{}{}
		checks := 0
		assert.True(t, s.Within(time.Second, func() bool { checks++; return checks == 2 }))
		assert.Zero(t, time.Since(begin))
	})
}
