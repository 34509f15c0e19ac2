// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
)

// storm is a machine on which orphans end as fast as the shim reaps them, until none is left.
type storm struct {
	Machine
	left  int
	wakes time.Duration
}

func (m *storm) Now() time.Duration { return time.Hour }

func (m *storm) Wake(at time.Duration) { m.wakes = at }

func (m *storm) Reap() (pid int, status unix.WaitStatus, none bool) {
	if m.left == 0 {
		return 0, 0, true
	}
	m.left--
	return 1000 + m.left, 0, false
}

// The shim checks the clock only between two calls of reap. So one call must not reap all orphans.
func TestShimKeepsDeadlineDespiteAFloodOfOrphans(t *testing.T) {
	m := &storm{left: 3 * mostReaped / 2}
	s := newShim(Config{}, Identity{}, m)
	assert.False(t, s.reap())
	assert.Equal(t, mostReaped/2, m.left)
	s.wakeAt(2 * time.Hour)
	assert.Equal(t, m.Now(), m.wakes, "the alarm rings immediately")
	s.tick(Rang)
	assert.Zero(t, m.left)
	s.wakeAt(2 * time.Hour)
	assert.Equal(t, 2*time.Hour, m.wakes)
	assert.True(t, s.reap())
}
