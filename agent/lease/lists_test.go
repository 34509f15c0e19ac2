// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The wall clock may be set back between two attempts, of which the API server refuses the list of the first one
// when it is repeated. The read must not take one for the other.
func TestReadTellsAttemptsWithDifferentListsApart(t *testing.T) {
	h := listing(t, one)
	h.Renew(at(105), wall.Add(time.Second), profile, []string{two})
	h.Refused(h.Renew(at(106), wall.Add(2*time.Second), profile, []string{two}))
	third := h.Renew(at(107), wall.Add(time.Second), profile, []string{two})
	require.Equal(t, []string{one}, third.Record.Supporters.IDs)
	stored := third.Record
	stored.Version = "3"
	require.NoError(t, h.Read(stored))
	h.Promised(two, at(120))
	assert.LessOrEqual(t, h.Deadline(), at(132), "the stored list has the first supporter, which has not promised")
}

// After a restore of etcd, the Lease may state the duration from before the list.
func TestLeaseFromBeforeTheListStatesTooLittle(t *testing.T) {
	h := listing(t, one)
	o := &Observer{ID: two, Own: h.self.Budget}
	o.Read(at(100), h.Record())
	restored := h.Record()
	restored.Version, restored.Duration, restored.Supporters.Number, restored.Supporters.IDs = "1", 30*time.Second, 0, nil
	o.Read(at(110), restored)
	until, ok := o.FreeAt(30 * time.Second)
	require.True(t, ok)
	assert.Equal(t, at(860), until, "the holder may have the promises of a later list")
}
