// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// slow is a busy or remote API server, which delays each answer.
type slow struct {
	from
	by time.Duration
}

func (s slow) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	l, err := s.from.GetLease(ctx, name)
	<-time.After(s.by)
	return l, err
}

func (s slow) UpdateLease(ctx context.Context, l *kube.Lease) (*kube.Lease, error) {
	l, err := s.from.UpdateLease(ctx, l)
	<-time.After(s.by)
	return l, err
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
			synctest.Test(t, func(t *testing.T) {
				names := api.Barrier{Name: "warm", Size: test.size}.Leases("run-1")
				s := &server{leases: map[string]*kube.Lease{}, changed: make(chan struct{}), dead: map[string]bool{}}
				for _, name := range names {
					s.put(&kube.Lease{Name: name, UID: "u-" + name})
				}
				var all []*waiting
				for i := range test.size {
					ctx, stop := context.WithCancel(t.Context())
					w := &waiting{stop: stop, done: make(chan struct{})}
					pod := fmt.Sprintf("p%d", i)
					began := time.Now()
					go func() {
						defer close(w.done)
						w.err = Run(ctx, Config{
							API: slow{from{s, pod}, test.answer}, Leases: names, Duration: test.lease, PodName: pod, PodUID: "uid", Log: io.Discard,
							Clock: func() time.Duration { return time.Since(began) }, Random: rand.NewPCG(uint64(i), 7),
						})
					}()
					t.Cleanup(func() { stop(); <-w.done })
					all = append(all, w)
				}
				ends(t, time.Hour, all...)
			})
		})
	}
}

// late is an API server that stores each write only after the delay, as with a slow etcd, even if the
// sender has given up. Such a server refuses an outdated write at once.
type late struct {
	from
	by time.Duration
}

func (s late) UpdateLease(ctx context.Context, l *kube.Lease) (*kube.Lease, error) {
	if s.lease(l.Name).ResourceVersion != l.ResourceVersion {
		return nil, &kube.StatusError{Code: 409}
	}
	type answer struct {
		stored *kube.Lease
		err    error
	}
	written, answered := l.Clone(), make(chan answer, 1)
	go func() {
		<-time.After(s.by)
		stored, err := s.from.UpdateLease(context.WithoutCancel(ctx), written)
		answered <- answer{stored, err}
	}()
	select {
	case got := <-answered:
		return got.stored, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// No pod gets an answer to a stored write, because each request times out before. The reads work.
func TestBarrierOpensDespiteSlowWrites(t *testing.T) {
	for _, by := range []time.Duration{1700 * time.Millisecond, 2 * time.Second, 3 * time.Second} {
		t.Run(by.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				var all []*waiting
				for i := range pods {
					ctx, stop := context.WithCancel(t.Context())
					w := &waiting{stop: stop, done: make(chan struct{})}
					pod, began := fmt.Sprintf("p%d", i), time.Now()
					go func() {
						defer close(w.done)
						w.err = Run(ctx, Config{
							API: late{from{s, pod}, by}, Leases: leases, Duration: 10 * time.Second, PodName: pod, PodUID: "uid", Log: io.Discard,
							Clock: func() time.Duration { return time.Since(began) }, Random: rand.NewPCG(uint64(i), 7),
						})
					}()
					t.Cleanup(func() {
						stop()
						<-w.done
						<-time.After(2 * by)
					})
					all = append(all, w)
				}
				ends(t, 2*time.Minute, all...)
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
				l := s.lease(leases[i])
				l.UID, l.Holder, l.DurationSeconds = "another", "dead_uid", 30
				l.RenewTime = time.Now().Add(-24 * time.Hour)
				s.put(l)
			}
		}
		lasts(t, time.Minute, a, b)
	})
}

// A client that is no agent has written a lease duration of 68 years.
func TestBarrierCapsHugeLeaseDurationOfDeadPod(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		l := s.lease(leases[1])
		l.Holder, l.DurationSeconds = "dead_uid", 1<<31-1
		s.put(l)
		ends(t, 2*api.MaxLeaseDuration, s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c"))
	})
}
