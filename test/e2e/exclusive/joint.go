// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// bookkeeper returns an application that bids by one call for the locks in the argument "claims".
// The application has only one replica, because a second pod would take the locks for an instant
// when a test scales the application to zero.
func bookkeeper(name, claims string) app.App {
	a := app.App{Name: name, Replicas: 1, Record: "ledger,archive", Args: []string{"-bid=" + claims}}
	a.Annotations = app.Claim(api.LocalAnnotation, "lock/ledger,lock/archive")
	a.Annotations[api.LeaseDurationAnnotation] = lease.Fault.String()
	return a
}

// Two applications name the locks in opposite orders. If they made one call for each lock, both
// applications could wait for each other. A third application bids for only one of the locks.
func TestProgramsWithTwoLocksRunOneByOne(t *testing.T) {
	t.Parallel()
	cluster.NeedLab(t, "it needs the record")
	s := space.New(t)
	forward, backward := bookkeeper("forward", "lock/ledger,lock/archive"), bookkeeper("backward", "lock/archive,lock/ledger")
	clerk := app.App{Name: "clerk", Replicas: 1, Record: "archive", Args: []string{"-bid=lock/archive"}, Annotations: forward.Annotations}
	for _, a := range []app.App{forward, backward, clerk} {
		app.Create(s, a)
	}
	// The record "archive" has the processes of all three applications.
	next := func(before *record.Process) (now *record.Process) {
		t.Helper()
		s.Await(2*lease.Fault+space.StartTimeout, "another program runs", func() bool {
			now = s.Running("archive")
			return now != nil && (before == nil || now.ID != before.ID)
		})
		return now
	}
	now := next(nil)
	for _, a := range []app.App{forward, backward, clerk} {
		app.AwaitGated(s, a)
	}

	// A killed program gives no hold back, so the next program waits until the Leases expire.
	process.MustSignal(s, s.Pod(now.Pod), process.Child, unix.SIGKILL)
	seen := lease.Renewed(s, api.LockLease("archive"))
	now = next(now)
	assert.GreaterOrEqual(t, now.Start, seen+lease.Fault, "the Lease has expired")

	// The test scales to zero the application whose pod holds the locks. The stop signal makes the
	// program give back all its holds, so the next application holds at once. The test ends after
	// all three applications have held.
	for turns := map[string]bool{}; ; {
		pod := s.Pod(now.Pod)
		require.NotNil(t, pod)
		name := pod.Labels["app"]
		if name != clerk.Name {
			for _, lock := range []string{"ledger", "archive"} {
				s.Await(space.Soon, "the pod holds both locks", func() bool {
					holder := s.Holder(api.LockLease(lock))
					return holder != nil && holder.Name == pod.Name
				})
			}
		}
		app.Scale(s, app.App{Name: name}, 0)
		if turns[name] = true; len(turns) == 3 {
			break
		}
		before := now
		now = next(before)
		app.VacantFor(s, app.App{Record: "archive"}, before, lease.Fault/2, "the holds were given back")
	}
}
