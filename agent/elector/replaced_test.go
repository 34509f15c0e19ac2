// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// An old manifest of a Lease can name a hold of this pod that is over. Another pod may have held the
// deleted Lease since then.
func TestProofNeverFreesAReplacedLease(t *testing.T) {
	c, f, free := claimOfOneSlot(t)
	held := lease.Record{UID: free.UID, Version: "5", Holder: "z_u", Hold: "h5", Duration: 30 * time.Second}
	old := lease.Record{UID: "uid-2", Version: "9", Holder: c.need.Self.Identity, Hold: "h3", Duration: 30 * time.Second}
	look := only(t, c, 0, f, Look)
	look.Read(0, held)
	look.Gone(10 * time.Second)
	only(t, c, 11*time.Second, f, Look).Read(11*time.Second, old)
	writes := func(a Action) bool { return a.Kind == Acquire || a.Kind == Release }
	for now := 11 * time.Second; now < 30*time.Second; now += time.Second {
		actions, wake := next(c, now, f)
		require.False(t, slices.ContainsFunc(actions, writes), "%v: %v", now, actions)
		require.LessOrEqual(t, wake, 30*time.Second)
		f.Compete = !f.Compete // a pod that does not compete must not release the Lease, either
	}
	f.Compete = true
	assert.Equal(t, "9", only(t, c, 30*time.Second, f, Acquire).Record.Version)
}
