// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// soon bounds the time from the last arrival until the barrier is open. In that time each pod that
// arrived earlier renews once, within a sixth of the duration. The pod with the first Lease reads
// all other Leases twice, within 5 s.
const soon = duration/6 + 5*time.Second

func TestBarrierOpensWhenTheLastPodArrives(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		a, b := s.arrive(t, "a"), s.arrive(t, "b")
		lasts(t, time.Hour, a, b)
		c := s.arrive(t, "c")
		ends(t, soon, a, b, c)
		assert.Equal(t, pods, s.opened())
		assert.Equal(t, [pods]string{}, s.holders(), "each pod releases its Lease")
	})
}

// The pods of a large Job write their releases at the same time, so their programs must not wait for these
// writes.
func TestBarrierReportsItsOpeningBeforeTheReleaseIsStored(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		s.Refuse = func(ctx context.Context, r apiserver.Request) error {
			if r.Verb == "put" && r.Lease.Holder == "" && r.Lease.Annotations[api.OpenedAnnotation] == "" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		all := []*waiting{s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c")}
		for _, w := range all {
			select {
			case <-w.opened:
			case <-time.After(soon):
				require.FailNow(t, "the barrier did not open")
			}
		}
		lasts(t, time.Second, all[1])
		ends(t, soon, all...)
	})
}

func TestOpenBarrierLetsLaterPodThrough(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		ends(t, soon, s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c"))
		ends(t, time.Second, s.arrive(t, "d"))
		assert.Equal(t, pods, s.opened())
	})
}

func TestThreePodsIgnoreBarrierThatOpenedForTwo(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		s.annotate(leases[0], api.OpenedAnnotation, "2")
		a, b := s.arrive(t, "a"), s.arrive(t, "b")
		lasts(t, time.Minute, a, b)
		ends(t, soon, a, b, s.arrive(t, "c"))
		assert.Equal(t, pods, s.opened())
	})
}

func TestBarrierIgnoresDeadPodAfterOneLeaseDuration(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		a, b := s.arrive(t, "a"), s.arrive(t, "b")
		lasts(t, time.Minute, a, b)
		s.kill("a")
		lasts(t, duration, b)
		c := s.arrive(t, "c")
		lasts(t, time.Hour, b, c)
		// Pod d must first see for itself that the Lease of the dead pod a expires.
		ends(t, duration+duration/6+soon, b, c, s.arrive(t, "d"))
	})
}

func TestStoppedPodReleasesItsArrivalAtABarrier(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		a, b := s.arrive(t, "a"), s.arrive(t, "b")
		lasts(t, time.Minute, a, b)
		require.True(t, s.holds("a"))
		a.stop()
		<-a.done
		require.Error(t, a.err)
		assert.False(t, s.holds("a"))
		c := s.arrive(t, "c")
		lasts(t, time.Minute, b, c)
		assert.Zero(t, s.opened())
	})
}

// In the local API, a pod waits at a barrier only during a program's call. If the agent is frozen
// until that call has ended, the agent must not renew the pod's arrival afterwards.
func TestArrivalIsNeverRenewedAfterTheWaitEnds(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		a, b := s.arrive(t, "a"), s.arrive(t, "b")
		lasts(t, time.Minute, a, b)
		a.away.Store(true)
		renewed := func() time.Time {
			for _, name := range leases {
				if l := s.Lease(name); api.PodOf(l.Holder) == "a" {
					return l.RenewTime
				}
			}
			return time.Time{}
		}
		last := renewed()
		lasts(t, 2*duration, a, b)
		assert.Equal(t, last, renewed())
		c := s.arrive(t, "c")
		lasts(t, time.Hour, b, c)
		a.away.Store(false)
		ends(t, duration+2*duration/6+soon, a, b, c)
	})
}

func TestBarrierOpensDespiteLostAnswersToWrites(t *testing.T) {
	for name, lost := range map[string]func(l *kube.Lease) bool{
		"openings":     func(l *kube.Lease) bool { return l.Annotations[api.OpenedAnnotation] != "" },
		"acquisitions": func(l *kube.Lease) bool { return l.Holder != "" && l.AcquireTime.Equal(l.RenewTime) },
	} {
		t.Run(name, func(t *testing.T) {
			atBarrier(t, func(t *testing.T, s *barrierServer) {
				s.Answer = func(r apiserver.Request, err error) error {
					if r.Verb == "put" && lost(r.Lease) {
						return apiserver.ErrBroken
					}
					return err
				}
				ends(t, 2*duration, s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c"))
				assert.Equal(t, pods, s.opened())
			})
		})
	}
}

func TestPausedLeaseKeepsTheBarrierFromOpening(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		s.annotate(leases[1], api.PausedAnnotation, "hold")
		a, b, c := s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c")
		lasts(t, time.Hour, a, b, c)
		s.annotate(leases[1], api.PausedAnnotation, "")
		ends(t, soon+duration/6, a, b, c)
	})
}

func TestPodsAtABarrierWaitForMissingLeases(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		s.Delete(leases[0])
		a, b, c := s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c")
		lasts(t, time.Hour, a, b, c)
		s.Set(&kube.Lease{Name: leases[0], UID: "other", Holder: "unknown", DurationSeconds: 60})
		lasts(t, 60*time.Second, a, b, c)
		ends(t, soon+2*duration, a, b, c)
	})
}

func TestPodAtABarrierSendsFewRequests(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		a, b := s.arrive(t, "a"), s.arrive(t, "b")
		lasts(t, time.Minute, a, b)
		before, reads := len(s.Requests("put")), len(s.Requests("get"))
		lasts(t, time.Hour, a, b)
		assert.LessOrEqual(t, len(s.Requests("get"))-reads, 60*(48*(pods-1)+2*12), "one pod reads the others, and each pod reads the record with its renewals")
		assert.LessOrEqual(t, len(s.Requests("put"))-before, 2*12*60+2, "each pod renews twelve times a minute")
		assert.GreaterOrEqual(t, len(s.Requests("put"))-before, 2*9*60)
	})
}

func TestOnlyRenewalOrAcquisitionProvesALivingHolder(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	state := func(version, holder string, renewed int) *kube.Lease {
		return &kube.Lease{UID: "u", ResourceVersion: version, Holder: holder, RenewTime: at(renewed)}
	}
	first := sight{}.next(state("1", "a_1", 1), 10, 11)
	assert.False(t, first.lives, "the first read proves nothing")
	for name, c := range map[string]struct {
		next  *kube.Lease
		lives bool
		since time.Duration
	}{
		"the same state":   {state("1", "a_1", 1), false, 11},
		"a renewal":        {state("2", "a_1", 2), true, 21},
		"a restored state": {state("2", "a_1", 0), false, 21},
		"a person's edit":  {state("2", "a_1", 1), false, 21},
		"another holder":   {state("2", "b_1", 1), true, 21},
		"a release":        {state("2", "", 2), false, 21},
		"enroll":           {state("2", "unknown", 2), false, 21},
		"another Lease":    {&kube.Lease{UID: "v", ResourceVersion: "2", Holder: "a_1", RenewTime: at(1)}, false, 21},
	} {
		got := first.next(c.next, 20, 21)
		assert.Equal(t, c.lives, got.lives, name)
		assert.Equal(t, c.since, got.since, name)
		if c.lives {
			assert.EqualValues(t, 10, got.wrote, "%s: the write is no older than the read before", name)
		}
	}
	renewed := first.next(state("2", "a_1", 2), 20, 21).next(state("2", "a_1", 2), 30, 31)
	assert.True(t, renewed.lives)
	assert.EqualValues(t, 10, renewed.wrote, "an unchanged Lease proves nothing new")
	assert.False(t, renewed.next(state("3", "", 3), 40, 41).lives)
}

func TestBarrierCountsPodsOfEqualNameOnce(t *testing.T) {
	for name, c := range map[string]struct {
		holders [pods - 1]string
		wrote   time.Duration
		want    bool
	}{
		"all":               {[pods - 1]string{"b_1", "c_1"}, 10, true},
		"a proof too old":   {[pods - 1]string{"b_1", "c_1"}, 9, false},
		"one pod twice":     {[pods - 1]string{"b_1", "b_1"}, 10, false},
		"a pod's successor": {[pods - 1]string{"b_1", "b_2"}, 10, false},
		"the pod itself":    {[pods - 1]string{"b_1", "a_0"}, 10, false},
		"a hole":            {[pods - 1]string{"b_1", ""}, 10, false},
	} {
		a := &arrival{BarrierConfig: BarrierConfig{Leases: leases, Duration: 10, PodName: "a"}, seen: map[string]sight{}}
		for i, holder := range c.holders {
			a.seen[leases[i+1]] = sight{holder: holder, lives: holder != "", wrote: c.wrote}
		}
		assert.Equal(t, c.want, a.complete(19), name)
	}
}

func TestInvalidBarrierConfigIsRefused(t *testing.T) {
	assert.ErrorContains(t, Barrier(t.Context(), BarrierConfig{}), "lease duration")
	assert.ErrorContains(t, Barrier(t.Context(), BarrierConfig{Duration: duration, Leases: leases}), "no API")
}

// A thief of a service account token may have written the largest possible number of transitions.
func TestArrivalNeverOverflowsTheNumberOfTransitions(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		for _, name := range leases {
			s.Edit(name, func(l *kube.Lease) { l.Transitions = math.MaxInt32 })
		}
		ends(t, soon, s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c"))
		for _, name := range leases {
			assert.Equal(t, math.MaxInt32, s.Lease(name).Transitions)
		}
	})
}

// barrierServer is the API server with the Leases of one barrier.
type barrierServer struct {
	*apiserver.Scripted
	// The requests of the pods in the map "dead" never get an answer.
	dead sync.Map
}

// pods is the size of the barrier in most tests.
const pods = 3

// duration is the lease duration in most tests.
const duration = 30 * time.Second

var leases = api.Barrier{Name: "warm", Size: pods}.Leases("run-1")

// atBarrier runs the test with simulated time, and with free Leases.
func atBarrier(t *testing.T, test func(t *testing.T, s *barrierServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &barrierServer{Scripted: apiserver.NewScripted(t.Context(), leases...)}
		s.Refuse = func(ctx context.Context, r apiserver.Request) error {
			if _, dead := s.dead.Load(r.By); dead {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		test(t, s)
	})
}

// opened returns the number of pods for which the first Lease records that the barrier is open;
// zero without a record.
func (s *barrierServer) opened() int {
	return api.Opened(s.Lease(leases[0]).Annotations[api.OpenedAnnotation])
}

// holders returns the pods that hold a Lease, by the Lease's index.
func (s *barrierServer) holders() (names [pods]string) {
	for i, name := range leases {
		names[i] = api.PodOf(s.Lease(name).Holder)
	}
	return names
}

// holds reports whether the pod holds a Lease.
func (s *barrierServer) holds(pod string) bool {
	names := s.holders()
	return slices.Contains(names[:], pod)
}

// kill makes the pod dead: from now on none of its requests reaches the server.
func (s *barrierServer) kill(pod string) {
	s.dead.Store(pod, true)
	s.Do(s.Watches.Cut)
}

// annotate sets the annotation of a Lease, or removes it if the value is empty.
func (s *barrierServer) annotate(lease, key, value string) {
	s.Edit(lease, func(l *kube.Lease) {
		if l.Annotations[key] = value; value == "" {
			delete(l.Annotations, key)
		}
	})
}

// waiting is a pod that waits at the barrier.
type waiting struct {
	stop context.CancelFunc
	done chan struct{}
	err  error
	// opened is closed when the pod knows that the barrier is open.
	opened chan struct{}
	// away makes [BarrierConfig.Counts] return false for the pod.
	away atomic.Bool
}

// arrive starts a pod that waits at the barrier.
func (s *barrierServer) arrive(t *testing.T, pod string) *waiting {
	t.Helper()
	return s.arriveAt(t, pod, leases, duration)
}

// arriveAt starts a pod that waits at the barrier with the Leases.
func (s *barrierServer) arriveAt(t *testing.T, pod string, leases []string, duration time.Duration) *waiting {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &waiting{stop: stop, done: make(chan struct{}), opened: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(w.done)
		w.err = Barrier(ctx, BarrierConfig{
			API: s.Client(pod), Leases: leases, Duration: duration, PodName: pod, PodUID: "uid", Log: io.Discard,
			Clock: func() time.Duration { return time.Since(began) }, Counts: func(time.Duration) bool { return !w.away.Load() },
			Opened: func() { close(w.opened) },
			Random: rand.NewPCG(uint64(len(pod)), uint64(pod[len(pod)-1])),
		})
	}()
	t.Cleanup(func() {
		stop()
		<-w.done
	})
	return w
}

// lasts requires that the pods still wait after the time d.
func lasts(t *testing.T, d time.Duration, all ...*waiting) {
	t.Helper()
	<-time.After(d)
	synctest.Wait()
	for i, w := range all {
		select {
		case <-w.done:
			require.FailNow(t, "a pod went on", "pod %d: %v", i, w.err)
		default:
		}
	}
}

// ends requires that the waits of the pods end within the time.
func ends(t *testing.T, within time.Duration, all ...*waiting) {
	t.Helper()
	late := time.After(within)
	for i, w := range all {
		select {
		case <-w.done:
			require.NoError(t, w.err)
		case <-late:
			require.FailNow(t, "a pod still waits", "pod %d", i)
		}
	}
}

// arriveAll starts as many pods as the barrier needs, and requires that all go on within the time.
func (s *barrierServer) arriveAll(t *testing.T, names []string, duration, within time.Duration) {
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
			atBarrier(t, func(t *testing.T, s *barrierServer) {
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
			atBarrier(t, func(t *testing.T, s *barrierServer) {
				s.Writes = by
				s.arriveAll(t, leases, 10*time.Second, 2*time.Minute)
			})
		})
	}
}

// A tool recreates the expired Lease of a dead pod with its old content (kubectl replace
// --force).
func TestRecreatedLeaseDoesNotProveALivingHolder(t *testing.T) {
	atBarrier(t, func(t *testing.T, s *barrierServer) {
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
	atBarrier(t, func(t *testing.T, s *barrierServer) {
		s.Edit(leases[1], func(l *kube.Lease) { l.Holder, l.DurationSeconds = "dead_uid", 1<<31-1 })
		ends(t, 2*api.MaxLeaseDuration, s.arrive(t, "a"), s.arrive(t, "b"), s.arrive(t, "c"))
	})
}
