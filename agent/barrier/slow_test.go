// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"fmt"
	"testing"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// arriveAll starts as many pods as the barrier needs, and requires that all go on within the time.
func (s *server) arriveAll(t *testing.T, names []string, duration, within time.Duration) {
	t.Helper()
	var all []*waiting
	for i := range names {
		all = append(all, s.arriveAt(t, fmt.Sprintf("p%d", i), names, duration))
	}
	ends(t, within, all...)
}

// All pods live, and no request fails. A survey of 32 Leases needs 31 answers. The proofs of life
// would be too old if the survey read one Lease after the other.
func TestBarrierOpensDespiteSlowAnswers(t *testing.T) {
	for _, test := range []struct {
		size          int
		lease, answer time.Duration
	}{
		{32, 30 * time.Second, 20 * time.Millisecond}, {32, 10 * time.Second, 60 * time.Millisecond}, {32, 30 * time.Second, 170 * time.Millisecond},
		{32, 10 * time.Second, 120 * time.Millisecond}, {16, 10 * time.Second, 350 * time.Millisecond}, {8, 10 * time.Second, 600 * time.Millisecond},
		{32, 30 * time.Second, 450 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				names := api.Barrier{Name: "warm", Size: test.size}.Leases("run-1")
				for _, name := range names {
					s.Set(&kube.Lease{Name: name})
				}
				s.Answers = test.answer
				s.arriveAll(t, names, test.lease, time.Hour)
			})
		})
	}
}

// The API server stores each write only after a delay, as with a slow etcd, even if the sender has given
// up. No pod gets an answer to a stored write, because each request times out before. The reads work.
func TestBarrierOpensDespiteSlowWrites(t *testing.T) {
	for _, by := range []time.Duration{1700 * time.Millisecond, 2 * time.Second, 3 * time.Second} {
		t.Run(by.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.Writes = by
				s.arriveAll(t, leases, 10*time.Second, 2*time.Minute)
			})
		})
	}
}

// A tool recreates the expired Lease of a dead pod with its old content (kubectl replace
// --force).
func TestRecreatedLeaseDoesNotProveALivingHolder(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		a, b := s.arrive(t, "a"), s.arrive(t, "b")
		lasts(t, time.Minute, a, b)
		for i, h := range s.holders() {
			if h == "" && i != 0 {
				l := s.Lease(leases[i])
				l.UID, l.Holder, l.DurationSeconds = "another", "dead_uid", 30
				l.RenewTime = time.Now().Add(-24 * time.Hour)
				s.Set(l)
			}
		}
		lasts(t, time.Minute, a, b)
	})
}

// A client that is no agent has written a lease duration of 68 years.
func TestBarrierCapsHugeLeaseDurationOfDeadPod(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.Edit(leases[1], func(l *kube.Lease) { l.Holder, l.DurationSeconds = "dead_uid", 1<<31-1 })
		ends(t, 2*api.MaxLeaseDuration, s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c"))
	})
}
