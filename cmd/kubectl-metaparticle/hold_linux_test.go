// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/api"
)

// fakeGuard stands for the watchdog: its command lasts until a kill, or until the last grant ends.
type fakeGuard struct {
	timer *time.Timer
	now   func() time.Duration
	code  chan int
	end   func(code int)
	// resumed is the time of the last call of resume.
	resumed *time.Duration
}

func (g *fakeGuard) ended() <-chan int { return g.code }

func (g *fakeGuard) resume() { *g.resumed = g.now() }

func (g *fakeGuard) send(message string, numbers ...int64) {
	switch message {
	case grantMessage:
		g.timer.Reset(time.Duration(numbers[1]) - g.now())
	case killMessage:
		g.end(137)
	case drainMessage, signalMessage:
		g.end(143)
	}
}

// person runs a hold in a bubble. The command lasts for the given time; zero means until it is stopped.
type person struct {
	name           string
	began, stopped time.Duration
	resumed        time.Duration
	leaps          chan struct{}
	signals        chan os.Signal
	token          string
	code           int
	err            error
	said           bytes.Buffer
	// duration is that of the lease; 30 s if zero.
	duration time.Duration
}

func (p *person) hold(t *testing.T, c client.WithWatch, now func() time.Duration, lasts, wait time.Duration, done func()) {
	budget, err := api.NewBudget(cmp.Or(p.duration, 30*time.Second))
	require.NoError(t, err)
	d := &driver{
		holding: holding{std: stdio{out: &p.said, err: &p.said}, namespace: "shop", slot: "lock.a", wait: wait}, now: now,
		events: make(chan func(time.Duration), 16), signals: p.signals, orphans: func() {}, leaps: p.leaps,
		self: lease.Self{Identity: api.PersonIdentity("0123456789abcdef", p.name), BootID: "boot-" + p.name, Budget: budget},
		start: func(_ holding, token string, _, killAt int64) (process, error) {
			p.began, p.token = now(), token
			g := &fakeGuard{now: now, resumed: &p.resumed, code: make(chan int, 1)}
			var once sync.Once
			g.end = func(code int) { once.Do(func() { p.stopped = now(); g.code <- code }) }
			g.timer = time.AfterFunc(time.Duration(killAt)-now(), func() { g.end(137) })
			if lasts > 0 {
				time.AfterFunc(lasts, func() { g.end(7) })
			}
			return g, nil
		},
	}
	go func() {
		defer done()
		p.code, p.err = d.run(context.WithoutCancel(t.Context()), leases{cluster{WithWatch: c}, "shop"})
	}()
}

func clock() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Hour + time.Since(start) }
}

func TestHoldRunsTheCommandUnderTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, now, ann := newByHand(slotLease("lock.a", "", nil)), clock(), &person{name: "ann"}
		var group sync.WaitGroup
		group.Add(1)
		ann.hold(t, b, now, 2*time.Minute, 0, group.Done)
		<-time.After(time.Minute)
		l := b.lease(t, "lock.a")
		assert.Equal(t, "person:0123456789abcdef_ann", *l.Spec.HolderIdentity)
		assert.NotEmpty(t, ann.token)
		assert.Equal(t, ann.token, l.Annotations[api.TokenAnnotation])
		assert.Less(t, time.Since(l.Spec.RenewTime.Time), 6*time.Second)
		var out byHand
		out.WithWatch = b.WithWatch
		assert.Equal(t, exitOK, out.exitCode(t, func(std stdio, c cluster) (int, error) {
			return screen{std: std, now: time.Now}.run(t.Context(), c, "shop", []string{"lock/a"})
		}))
		assert.Contains(t, out.out.String(), "person ann")
		assert.Contains(t, out.out.String(), "Serving")
		assert.Equal(t, exitRefused, out.yield(t, yielding{}, "lock/a"))
		group.Wait()
		assert.Equal(t, 7, ann.code, ann.said.String())
		assert.Empty(t, *b.lease(t, "lock.a").Spec.HolderIdentity, "released")
	})
}

// A new Lease counts as held from each job's own first look, so jobs that come every minute would never get it.
func TestHoldRefusesAWaitThatNeverGetsANewLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, now := newByHand(), clock()
		server, _ := breakable(b)
		hold := func(wait time.Duration) *person {
			ann := &person{name: "ann"}
			var group sync.WaitGroup
			group.Add(1)
			ann.hold(t, server, now, time.Second, wait, group.Done)
			group.Wait()
			return ann
		}
		for _, wait := range []time.Duration{20 * time.Second, 30 * time.Second} {
			ann := hold(wait)
			assert.Equal(t, exitError, ann.code)
			require.Error(t, ann.err)
			assert.Equal(t, "lock.a has no Lease yet, and a new one counts as held for 30s: --wait must be at least 35s, or --lease-duration shorter", ann.err.Error())
		}
		assert.Equal(t, 7, hold(35*time.Second).code)
	})
	synctest.Test(t, func(t *testing.T) {
		made := slotLease("lock.a", "", nil)
		made.Spec.HolderIdentity, made.Spec.LeaseDurationSeconds = new(api.UnknownPerson), new(int32(30))
		ann := &person{name: "ann"}
		var group sync.WaitGroup
		group.Add(1)
		ann.hold(t, newByHand(made), clock(), time.Second, 20*time.Second, group.Done)
		group.Wait()
		assert.Equal(t, exitNot, ann.code)
		assert.Contains(t, ann.said.String(), "lock.a was not free within 20s: its Lease is new, and counts as held for 30s from the first look, so --wait must be longer")
	})
}

func TestHoldWaitsForALivingHolder(t *testing.T) {
	for name, c := range map[string]struct {
		wait, pause time.Duration
		code        int
	}{"it is released": {0, 0, 7}, "the wait ends": {time.Minute, 0, exitNot}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				held := slotLease("lock.a", "web", nil)
				held.Spec.LeaseDurationSeconds = new(int32(30))
				b, now, ann := newByHand(held), clock(), &person{name: "ann"}
				renewing, stop := context.WithCancel(t.Context())
				var group sync.WaitGroup
				group.Add(1)
				ann.hold(t, b, now, time.Second, c.wait, group.Done)
				for range 20 {
					<-time.After(5 * time.Second)
					l := b.lease(t, "lock.a")
					if l.Annotations[api.HoldAnnotation] != "hold-web" || renewing.Err() != nil {
						break
					}
					l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
					require.NoError(t, b.Update(t.Context(), l))
				}
				assert.Zero(t, ann.began, "the pod still renews")
				stop()
				b.after(t, time.Nanosecond, "lock.a", "")
				group.Wait()
				assert.Equal(t, c.code, ann.code)
				assert.Equal(t, 1, strings.Count(ann.said.String(), "waiting: web holds lock.a\n"), ann.said.String())
			})
		})
	}
}

// Nothing remembers who held an earlier Lease of a lock that only people use. So a new one is waited out.
func TestHoldMakesTheLeaseAndWaitsItOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, now := newByHand(), clock()
		server, _ := breakable(b)
		ann, pat := &person{name: "ann"}, &person{name: "pat"}
		var group sync.WaitGroup
		group.Add(2)
		made := now()
		ann.hold(t, server, now, time.Minute, 0, group.Done)
		pat.hold(t, server, now, time.Minute, 0, group.Done)
		<-time.After(time.Second)
		l := b.lease(t, "lock.a")
		assert.Equal(t, map[string]string{api.ManagedLabel: "true"}, l.Labels)
		assert.Equal(t, api.UnknownPerson, *l.Spec.HolderIdentity)
		assert.EqualValues(t, 30, *l.Spec.LeaseDurationSeconds)
		assert.Empty(t, l.Annotations)
		group.Wait()
		first, second := ann, pat
		if pat.began < ann.began {
			first, second = pat, ann
		}
		assert.GreaterOrEqual(t, first.began-made, 30*time.Second)
		assert.LessOrEqual(t, first.began-made, 35*time.Second)
		assert.Greater(t, second.began, first.stopped)
		assert.Contains(t, first.said.String(), "waiting: the Lease of lock.a is new, and an earlier one may have a holder: 30s\n")

		ann = &person{name: "ann"}
		group.Add(1)
		again := now()
		ann.hold(t, server, now, time.Second, 0, group.Done)
		group.Wait()
		assert.Less(t, ann.began-again, 5*time.Second, "the Lease stays, so the next hold waits for nobody")
	})
}

// A Lease that vanishes under a living holder stops the command, however long its connection is broken.
func TestVanishedLeaseLetsNoTwoHoldsRun(t *testing.T) {
	for name, c := range map[string]struct {
		cutOff bool
		// first and second are the lease durations, and longest the one that the second must wait out.
		first, second, longest time.Duration
		// begins reports that the second hold begins before the Lease vanishes, so that it waits already.
		begins bool
	}{
		"the holder sees it":             {false, 30 * time.Second, 30 * time.Second, 0, false},
		"the holder is cut off":          {true, 30 * time.Second, 30 * time.Second, 30 * time.Second, false},
		"under a waiting hold":           {true, 30 * time.Second, 30 * time.Second, 30 * time.Second, true},
		"the next has a longer one":      {true, 30 * time.Second, time.Minute, time.Minute, false},
		"the next has seen a longer one": {true, time.Minute, 30 * time.Second, 45 * time.Second, true},
		"of the shortest lease of both":  {true, 10 * time.Second, 10 * time.Second, 10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, now := newByHand(), clock()
				ann, pat := &person{name: "ann", duration: c.first}, &person{name: "pat", duration: c.second}
				away, cut := breakable(b)
				server, _ := breakable(b)
				var group sync.WaitGroup
				group.Add(2)
				ann.hold(t, away, now, 0, 0, group.Done)
				<-time.After(2 * c.first)
				require.NotZero(t, ann.began)
				if c.begins {
					pat.hold(t, server, now, time.Minute, 0, group.Done)
					<-time.After(time.Second)
				}
				if c.cutOff {
					cut()
				}
				vanished := now()
				require.NoError(t, b.Delete(t.Context(), b.lease(t, "lock.a")))
				if !c.begins {
					pat.hold(t, server, now, time.Minute, 0, group.Done)
				}
				group.Wait()
				assert.Less(t, ann.stopped, pat.began)
				assert.GreaterOrEqual(t, pat.began-vanished, c.longest)
				if !c.cutOff {
					assert.Equal(t, exitNot, ann.code)
					assert.Less(t, ann.stopped-vanished, 10*time.Second)
				}
			})
		})
	}
}

// breakable returns a client of the API server whose requests and watches fail after the call of cut.
func breakable(b *byHand) (away client.WithWatch, cut func()) {
	var broken atomic.Bool
	errBroken := errors.New("no route to host")
	return interceptor.NewClient(b, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			if broken.Load() {
				return errBroken
			}
			return c.Update(ctx, o, options...)
		},
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if broken.Load() {
				return errBroken
			}
			return c.Get(ctx, key, o, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			if broken.Load() {
				return errBroken
			}
			return create(ctx, c, o, options...)
		},
	}), func() { broken.Store(true) }
}

// create gives the object a UID, as an API server does and the fake one does not.
func create(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
	o.SetUID(types.UID(strconv.FormatUint(rand.Uint64(), 16)))
	return c.Create(ctx, o, options...)
}

// A hold that may not make the Lease ends at once and says what it needs; trouble that passes ends no hold.
func TestHoldThatMayNotMakeTheLease(t *testing.T) {
	leases := schema.GroupResource{Group: coordinationv1.GroupName, Resource: "leases"}
	for name, c := range map[string]struct {
		refusal error
		says    string
	}{
		"no right":     {apierrors.NewForbidden(leases, "", errors.New(`User "ci" cannot create resource "leases"`)), `User "ci" cannot create resource "leases"`},
		"no namespace": {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "shop"), `namespaces "shop" not found`},
		"no answer":    {apierrors.NewTimeoutError("etcdserver: request timed out", 0), ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, now, ann := newByHand(), clock(), &person{name: "ann"}
				refusals := 3
				c1 := interceptor.NewClient(b, interceptor.Funcs{
					Create: func(ctx context.Context, w client.WithWatch, o client.Object, options ...client.CreateOption) error {
						if refusals--; refusals >= 0 {
							return c.refusal
						}
						return create(ctx, w, o, options...)
					},
				})
				var group sync.WaitGroup
				group.Add(1)
				ann.hold(t, c1, now, time.Second, 0, group.Done)
				group.Wait()
				if c.says == "" {
					assert.Equal(t, 7, ann.code, "%v", ann.err)
					return
				}
				assert.Zero(t, ann.began)
				assert.Equal(t, exitError, ann.code)
				assert.ErrorContains(t, ann.err, "you may not make its Lease (https://")
				assert.ErrorContains(t, ann.err, c.says)
			})
		})
	}
}

func TestHoldMakesNoLeaseWhereNobodySweepsIt(t *testing.T) {
	b := interceptor.NewClient(newByHand(), interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return nil },
	})
	for _, namespace := range []string{"kube-system", "metaparticle-system"} {
		_, err := holding{namespace: namespace, slot: "lock.a"}.identify(t.Context(), cluster{WithWatch: b})
		assert.ErrorContains(t, err, "enroll keeps no locks in the namespace "+namespace)
	}
	_, err := holding{namespace: "shop", slot: "lock.a"}.identify(t.Context(), cluster{WithWatch: b})
	assert.NoError(t, err)
}

func TestHoldOfAMissingCommandEndsBeforeTheWait(t *testing.T) {
	code, err := holding{command: []string{"no-such-command"}, leaseDuration: api.DefaultLeaseDuration}.run(t.Context(), cluster{})
	assert.Equal(t, exitError, code)
	assert.ErrorContains(t, err, "no-such-command")
}

func TestHoldSaysThatTheLockIsPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		paused := slotLease("lock.a", "", map[string]string{api.PausedAnnotation: "hold"})
		b, now, ann := newByHand(paused), clock(), &person{name: "ann"}
		var group sync.WaitGroup
		group.Add(1)
		ann.hold(t, b, now, time.Second, time.Minute, group.Done)
		group.Wait()
		assert.Equal(t, exitNot, ann.code)
		assert.Equal(t, "waiting: lock.a is paused: kubectl metaparticle resume -n shop lock.a\nlock.a was not free within 1m0s\n", ann.said.String())
	})
}

// While the API server refuses all writes of one person, the command ends before another begins.
func TestTwoHoldsNeverRunAtOnce(t *testing.T) {
	for name, cut := range map[string]time.Duration{"in turn": 0, "cut off": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, now := newByHand(slotLease("lock.a", "", nil)), clock()
				away, cutOff := breakable(b)
				ann, pat := &person{name: "ann"}, &person{name: "pat"}
				var group sync.WaitGroup
				group.Add(2)
				lasts := time.Minute
				if cut > 0 {
					lasts = 0
					time.AfterFunc(cut, cutOff)
				}
				ann.hold(t, away, now, lasts, 0, group.Done)
				<-time.After(10 * time.Second)
				pat.hold(t, b, now, time.Minute, 0, group.Done)
				group.Wait()
				require.NotZero(t, pat.began)
				assert.Less(t, ann.stopped, pat.began)
				if cut > 0 {
					assert.GreaterOrEqual(t, pat.began-ann.stopped, 5*time.Second, "the margin of the lease")
					assert.LessOrEqual(t, ann.stopped-ann.resumed, time.Second, "a guard that somebody has stopped is continued during the outage, too")
				}
				first, _ := strconv.Atoi(ann.token)
				second, _ := strconv.Atoi(pat.token)
				assert.Greater(t, second, first)
			})
		})
	}
}

// A pause that stops, or a Lease that names another holder, ends the command.
func TestHoldObeysPauseAndLoss(t *testing.T) {
	for name, change := range map[string]func(*coordinationv1.Lease){
		"pause --stop": func(l *coordinationv1.Lease) { l.Annotations[api.PausedAnnotation] = "stop" },
		"another":      func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("web_1") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, now, ann := newByHand(slotLease("lock.a", "", nil)), clock(), &person{name: "ann"}
				var group sync.WaitGroup
				group.Add(1)
				ann.hold(t, b, now, 0, 0, group.Done)
				<-time.After(12 * time.Second)
				require.NotZero(t, ann.began)
				l := b.lease(t, "lock.a")
				change(l)
				require.NoError(t, b.Update(t.Context(), l))
				changed := now()
				group.Wait()
				assert.Less(t, ann.stopped-changed, 2*time.Second)
			})
		})
	}
}

// A paused machine does not know how long it was paused, so hold asks whether the lock is still its own.
func TestHoldRenewsAfterALeap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, now, ann := newByHand(slotLease("lock.a", "", nil)), clock(), &person{name: "ann", leaps: make(chan struct{})}
		var group sync.WaitGroup
		group.Add(1)
		ann.hold(t, b, now, time.Minute, 0, group.Done)
		<-time.After(12 * time.Second)
		before := time.Now()
		ann.leaps <- struct{}{}
		<-time.After(time.Millisecond)
		assert.False(t, b.lease(t, "lock.a").Spec.RenewTime.Time.Before(before.Truncate(time.Microsecond)), "renewed at once")
		group.Wait()
	})
}

// A second signal ends the wait for an API server that does not store the release.
func TestSecondSignalEndsTheWaitForTheRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, now, ann := newByHand(slotLease("lock.a", "", nil)), clock(), &person{name: "ann", signals: make(chan os.Signal)}
		broken := false
		away := interceptor.NewClient(b, interceptor.Funcs{
			Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
				broken = true
				return errors.New("no route to host")
			},
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				if broken {
					return errors.New("no route to host")
				}
				return c.Get(ctx, key, o, options...)
			},
		})
		var group sync.WaitGroup
		group.Add(1)
		ann.hold(t, away, now, 0, 0, group.Done)
		<-time.After(5 * time.Second)
		ann.signals <- unix.SIGINT
		<-time.After(2 * time.Second)
		ann.signals <- unix.SIGINT // blocks for ever if hold has ended
		second := now()
		group.Wait()
		assert.Zero(t, now()-second)
		assert.Zero(t, ann.began)
		assert.Equal(t, 130, ann.code)
		assert.Contains(t, ann.said.String(), "expires within 30s")
	})
}

// guardOf starts a real guard with a script, which gets the folder as $1.
func guardOf(t *testing.T, script string, drain, kill time.Duration) (process, string) {
	t.Helper()
	dir := t.TempDir()
	now := linux.Now()
	p, err := startGuard(holding{command: []string{"/bin/sh", "-c", script, "sh", dir}}, "4711", int64(now+drain), int64(now+kill))
	require.NoError(t, err)
	return p, dir
}

// textOf waits for a file of the script, and returns its text.
func textOf(t *testing.T, file string) (text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(file)
		text = strings.TrimSpace(string(b))
		return err == nil && strings.HasSuffix(string(b), "\n")
	}, 20*time.Second, 5*time.Millisecond)
	return text
}

// escapes begins a process in a session of its own, whose parent ends.
const escapes = `setsid sh -c 'trap "" TERM; echo $$ > '$1'/pid; exec sleep 600' & while [ ! -s $1/pid ]; do sleep 0.01; done; `

func TestGuard(t *testing.T) {
	const long = time.Hour
	for name, c := range map[string]struct {
		script      string
		drain, kill time.Duration
		do          func(p process)
		code        int
	}{
		"own end":             {escapes + "exit 7", long, long, nil, 7},
		"killed by a signal":  {escapes + "kill -KILL $$", long, long, nil, 137},
		"end of the grant":    {escapes + `trap "" TERM; sleep 600`, long, 2 * time.Second, nil, 137},
		"drain":               {escapes + `trap "exit 9" TERM; while :; do sleep 0.01; done`, 2 * time.Second, long, nil, 9},
		"signal":              {escapes + `trap "exit 5" USR1; echo > $1/ready; while :; do sleep 0.01; done`, long, long, func(p process) { p.send(signalMessage, 10) }, 5},
		"a kill":              {escapes + "sleep 600", long, long, func(p process) { p.send(killMessage) }, 137},
		"the death of hold":   {escapes + "sleep 600", long, long, func(p process) { p.(guarded).grants.Close() }, 137},
		"the token":           {escapes + `exit $((METAPARTICLE_FENCING_TOKEN - 4700))`, long, long, nil, 11},
		"a grant in the past": {"echo > $1/pid", -time.Second, -time.Second, nil, exitError},
		"a command not found": {escapes + "exec /no/such", long, long, nil, 127},
		"a stopped guard": {escapes + "sleep 600", long, 3 * time.Second, func(p process) {
			g := p.(guarded)
			_ = g.guard.Signal(unix.SIGSTOP)
			<-time.After(4 * time.Second)
			g.resume()
		}, 137},
		"a grant after the drain": {escapes + `trap "echo > $1/ready" TERM; while :; do sleep 0.01; done`, 2 * time.Second, 6 * time.Second, func(p process) {
			p.send(grantMessage, int64(linux.Now()+long), int64(linux.Now()+long))
		}, 137},
		"a stopped descendant": {escapes + `kill -STOP $(cat $1/pid); exit 3`, long, long, nil, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, dir := guardOf(t, c.script, c.drain, c.kill)
			if c.drain > 0 {
				pid := textOf(t, filepath.Join(dir, "pid"))
				if strings.Contains(c.script, "/ready") {
					textOf(t, filepath.Join(dir, "ready"))
				}
				if c.do != nil {
					c.do(p)
				}
				defer func() { assert.NoDirExists(t, "/proc/"+pid, "the escaped process is dead") }()
			}
			select {
			case code := <-p.ended():
				assert.Equal(t, c.code, code)
			case <-time.After(30 * time.Second):
				require.Fail(t, "the command does not end", fmt.Sprint(c))
			}
			if c.drain < 0 {
				assert.NoFileExists(t, filepath.Join(dir, "pid"), "the command did not start")
			}
		})
	}
}

// stalling forwards connections to a server. Once stalled, it loses what the connections of that time send.
type stalling struct {
	net.Listener
	to string

	mu   sync.Mutex
	open []*atomic.Bool
	// lost gets a value when something was lost.
	lost chan struct{}
}

func (s *stalling) serve() {
	for {
		from, err := s.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", s.to)
		if err != nil {
			from.Close()
			continue
		}
		stalled := new(atomic.Bool)
		s.mu.Lock()
		s.open = append(s.open, stalled)
		s.mu.Unlock()
		go func() { _, _ = io.Copy(from, to) }()
		go func() {
			defer to.Close()
			buffer := make([]byte, 64<<10)
			for {
				n, err := from.Read(buffer)
				if err != nil {
					return
				}
				if !stalled.Load() {
					_, _ = to.Write(buffer[:n])
					continue
				}
				select {
				case s.lost <- struct{}{}:
				default:
				}
			}
		}()
	}
}

func (s *stalling) stall() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stalled := range s.open {
		stalled.Store(true)
	}
}

// A connection can lose everything without an error, as behind a firewall that has forgotten it.
func TestHoldRenewsByAnotherConnectionThanAStalledOne(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"coordination.k8s.io/v1","resources":[{"name":"leases","kind":"Lease","namespaced":true,"verbs":["get"]}]}`
		if strings.HasSuffix(r.URL.Path, "/leases/lock.a") {
			answer = `{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"lock.a","namespace":"shop","uid":"u","resourceVersion":"7"},"spec":{}}`
		}
		_, _ = io.WriteString(w, answer)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	between := &stalling{Listener: listener, to: server.Listener.Addr().String(), lost: make(chan struct{}, 1)}
	defer between.Close()
	go between.serve()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c",
"contexts":[{"name":"c","context":{"cluster":"c","user":"u","namespace":"shop"}}],"users":[{"name":"u","user":{"token":"t"}}],
"clusters":[{"name":"c","cluster":{"server":"https://%s","insecure-skip-tls-verify":true}}]}`, listener.Addr()), 0o600))
	p := newPlugin(stdio{})
	p.kube.KubeConfig = &kubeconfig
	c, namespace, err := p.openApart()
	require.NoError(t, err)
	requests := leases{c, namespace}
	_, err = requests.GetLease(t.Context(), "lock.a")
	require.NoError(t, err)

	between.stall()
	ctx, timeOut := context.WithCancel(t.Context())
	go func() {
		<-between.lost
		timeOut()
	}()
	_, err = requests.GetLease(ctx, "lock.a")
	require.ErrorIs(t, err, context.Canceled)
	ctx, end := context.WithTimeout(t.Context(), 10*time.Second)
	defer end()
	_, err = requests.GetLease(ctx, "lock.a")
	assert.NoError(t, err, "the next request needs another connection")
}
