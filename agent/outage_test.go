// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// Each outage is just shorter than [api.Budget.Outage]. The outages begin at many points of a
// renewal period, and in most cases the watches fail, too.
func TestChildSurvivesShortOutageEvenIfWatchesFail(t *testing.T) {
	b, _ := api.NewBudget(api.MinLeaseDuration)
	outage := b.Outage() - 50*time.Millisecond
	for name, weather := range map[string]func(l *link){
		"fine":                   func(*link) {},
		"watches too old":        func(l *link) { l.unwatched = &kube.StatusError{Code: 410} },
		"watches refused":        func(l *link) { l.unwatched = &kube.StatusError{Code: 403} },
		"watches cut at once":    func(l *link) { l.idle = 1 },
		"watches closed at once": func(l *link) { l.idle, l.orderly = 1, true },
	} {
		t.Run(name, func(t *testing.T) {
			lost := map[string]int{}
			tries := 0
			for phase := time.Duration(0); phase < 3*time.Second; phase += 60 * time.Millisecond {
				for _, hangs := range []bool{true, false} {
					simulate(t, func(w *world) {
						a := stubborn(w, func(c *Config) { c.LeaseDuration = api.MinLeaseDuration })
						a.link.set(weather)
						w.breaks()
						w.pass(time.Minute + phase)
						a.link.set(func(l *link) {
							if hangs {
								l.cut = true
							} else {
								l.refuse = errors.New("refused")
							}
						})
						w.pass(outage)
						a.link.set(func(l *link) { l.cut, l.refuse = false, nil })
						w.pass(3 * time.Second)
						tries++
						if told := a.gates.told(); len(told) > 0 {
							lost[told[0]]++
						}
					})
				}
			}
			assert.Empty(t, lost, "of %d outages of %v", tries, outage)
		})
	}
}

// The watch again and again delivers an old event, which shows an earlier holder.
func TestStaleWatchEventsDoNotDelayARenewal(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 500 * time.Millisecond, 200 * time.Millisecond, 50 * time.Millisecond} {
		t.Run(every.String(), func(t *testing.T) {
			simulate(t, func(w *world) {
				a := settled(w)
				old := w.server.lease(theSlot)
				old.Holder = "before_u"
				for range 2 * time.Minute / every {
					w.sends(kube.WatchEvent{Type: kube.Modified, Lease: &old})
					w.pass(every)
				}
				assert.Empty(t, a.gates.told())
				assert.True(t, a.running("s1"))
			})
		})
	}
}

// After an outage longer than the lease duration, the previous holder acquires the slot before a
// standby does.
func TestPreviousHolderReacquiresSlotAfterLongOutage(t *testing.T) {
	for _, d := range []time.Duration{api.MinLeaseDuration, 30 * time.Second} {
		for _, mode := range []string{"refused", "hangs"} {
			t.Run(fmt.Sprint(d, mode), func(t *testing.T) {
				other, nobody, tries := 0, 0, 0
				var worst time.Duration
				for phase := time.Duration(0); phase < 2*time.Second; phase += 20 * time.Millisecond {
					simulate(t, func(w *world) {
						dur := func(c *Config) { c.LeaseDuration = d }
						w.free(theSlot)
						a := w.start("a", dur)
						a.connect("s1")
						w.within(time.Second, "child runs", func() bool { return a.running("s1") })
						b := w.start("b", dur)
						b.connect("s2")
						w.pass(10 * time.Second)
						for _, p := range []*pod{a, b} {
							p.link.set(func(l *link) {
								if mode == "hangs" {
									l.cut = true
								} else {
									l.refuse = errors.New("refused")
								}
							})
						}
						w.pass(3*time.Minute + phase)
						for _, p := range []*pod{a, b} {
							p.link.set(func(l *link) { l.cut, l.refuse = false, nil })
						}
						back := w.clock()
						for w.clock() < back+2*d && !a.running("s1") && !b.running("s2") {
							w.pass(10 * time.Millisecond)
						}
						tries++
						worst = max(worst, w.clock()-back)
						switch {
						case a.running("s1"):
						case b.running("s2"):
							other++
						default:
							nobody++
						}
					})
				}
				t.Logf("worst %v", worst)
				assert.Zero(t, other+nobody, "of %d outages", tries)
			})
		}
	}
}

// Another client often writes a label of the Lease, but never changes the holder. In
// half of the cases the API server refuses watches.
func TestHolderKeepsSlotWhileAnotherClientWritesLease(t *testing.T) {
	for _, d := range []time.Duration{10 * time.Second, 12 * time.Second, 30 * time.Second} {
		for _, refused := range []bool{false, true} {
			for _, every := range []time.Duration{time.Second, 400 * time.Millisecond, 300 * time.Millisecond} {
				t.Run(fmt.Sprint(d, " refused ", refused, " every ", every), func(t *testing.T) {
					simulate(t, func(w *world) {
						a := stubborn(w, func(c *Config) { c.LeaseDuration = d })
						if refused {
							a.link.set(func(l *link) { l.unwatched = &kube.StatusError{Code: 403} })
							w.breaks()
						}
						for range 3 * time.Minute / every {
							w.edit(func(*kube.Lease) {})
							w.pass(every)
						}
						assert.Empty(t, a.gates.told())
					})
				})
			}
		}
	}
}

// After each leap the agent soon grants again, even if several leaps coincide with lost answers.
// The pod has two containers and two slots.
func TestAgentExtendsGrantsSoonAfterEveryLeap(t *testing.T) {
	for seed := range uint64(200) {
		simulate(t, func(w *world) {
			rng := rand.New(rand.NewPCG(seed, 1))
			d := []time.Duration{10 * time.Second, 30 * time.Second, time.Minute}[rng.IntN(3)]
			w.free("lock.a", "lock.b")
			a := w.start("a", func(c *Config) {
				c.LeaseDuration, c.Slots, c.Containers = d, []string{"lock.a", "lock.b"}, []string{"app", "side"}
			})
			late := make(chan struct{})
			if rng.IntN(2) == 0 {
				a.link.set(func(l *link) { l.withheld = late })
			}
			a.connect("s1").stop = time.Hour
			a.gates.connect(gate.Report{Shim: "s2", Container: "side"}).stop = time.Hour
			leaps := 0
			leap := func() {
				leaps++
				for _, id := range []gate.ShimID{"s1", "s2"} {
					a.leaps(id, leaps)
					w.pass(time.Duration(rng.IntN(3)) * 10 * time.Millisecond)
				}
			}
			answered := func() bool {
				for _, id := range []gate.ShimID{"s1", "s2"} {
					if s := a.gates.shim(id); s.grant.Leap != leaps || s.report.Phase != gate.Running {
						return false
					}
				}
				return true
			}
			w.pass(time.Duration(rng.IntN(100)) * time.Millisecond)
			leap()
			close(late)
			took := w.within(3*time.Second, "first leap answered", answered)
			for range 5 {
				w.pass(time.Duration(rng.IntN(12000)) * time.Millisecond)
				if rng.IntN(2) == 0 {
					a.link.set(func(l *link) { l.lose = true })
				}
				for range 1 + rng.IntN(3) {
					leap()
				}
				took = max(took, w.within(d/12+4*time.Second, "answered", answered))
			}
			if len(a.gates.told()) > 0 {
				t.Errorf("seed %d: %v", seed, a.gates.told())
			}
		})
	}
}

// After an outage longer than the lease duration, the previous holder acquires the slot before a
// standby does, even if watches fail.
func TestPreviousHolderReacquiresSlotEvenIfWatchesFail(t *testing.T) {
	for name, weather := range map[string]func(l *link){
		"watches refused":     func(l *link) { l.unwatched = &kube.StatusError{Code: 403} },
		"watches cut at once": func(l *link) { l.idle = 1 },
		"watches too old":     func(l *link) { l.unwatched = &kube.StatusError{Code: 410} },
	} {
		for _, d := range []time.Duration{api.MinLeaseDuration, 30 * time.Second} {
			t.Run(fmt.Sprint(name, d), func(t *testing.T) {
				other, nobody, tries := 0, 0, 0
				var worst time.Duration
				for phase := time.Duration(0); phase < 2*time.Second; phase += 40 * time.Millisecond {
					simulate(t, func(w *world) {
						dur := func(c *Config) { c.LeaseDuration = d }
						w.free(theSlot)
						a := w.start("a", dur)
						a.link.set(weather)
						a.connect("s1")
						w.within(time.Second, "child runs", func() bool { return a.running("s1") })
						b := w.start("b", dur)
						b.link.set(weather)
						b.connect("s2")
						w.pass(10 * time.Second)
						for _, p := range []*pod{a, b} {
							p.link.set(func(l *link) { l.refuse = errors.New("refused") })
						}
						w.pass(3*time.Minute + phase)
						for _, p := range []*pod{a, b} {
							p.link.set(func(l *link) { l.refuse = nil })
						}
						back := w.clock()
						for w.clock() < back+3*d && !a.running("s1") && !b.running("s2") {
							w.pass(10 * time.Millisecond)
						}
						tries++
						worst = max(worst, w.clock()-back)
						switch {
						case a.running("s1"):
						case b.running("s2"):
							other++
						default:
							nobody++
						}
					})
				}
				t.Logf("worst %v, other %d, nobody %d", worst, other, nobody)
				assert.Zero(t, other+nobody, "of %d outages", tries)
			})
		}
	}
}

// Pod x needs two locks, and its watch wrongly reports again and again that the second lock is
// free. Pod y needs only the first lock, and must be able to acquire it.
func TestFalseLockEventsNeverBlockAnotherLock(t *testing.T) {
	simulate(t, func(w *world) {
		w.free("lock.a", "lock.b")
		z := w.start("z", func(c *Config) { c.Slots = []string{"lock.b"} })
		z.connect("s3")
		w.within(time.Second, "z runs", func() bool { return z.running("s3") })
		x := w.start("x", both)
		x.connect("s1")
		w.pass(time.Second)
		stale := w.server.lease("lock.b")
		stale.Holder = ""
		lie := func() {
			w.server.mu.Lock()
			defer w.server.mu.Unlock()
			for one := range w.server.watchers {
				if one.name == "lock.b" {
					one.events <- kube.WatchEvent{Type: kube.Modified, Lease: &stale}
				}
			}
		}
		for range 20 {
			lie()
			w.pass(100 * time.Millisecond)
		}
		y := w.start("y", first)
		y.connect("s2")
		ran := false
		began := w.clock()
		for range 1200 {
			lie()
			w.pass(100 * time.Millisecond)
			if y.running("s2") {
				ran = true
				break
			}
		}
		t.Logf("y ran: %v after %v; z still: %v", ran, w.clock()-began, z.running("s3"))
		assert.True(t, ran)
	})
}

// A pod without watches still takes a slot that is free.
func TestPodTakesFreeSlotEvenIfWatchesFail(t *testing.T) {
	for name, weather := range map[string]func(l *link){
		"refused":     func(l *link) { l.unwatched = &kube.StatusError{Code: 403} },
		"cut at once": func(l *link) { l.idle = 1 },
		"too old":     func(l *link) { l.unwatched = &kube.StatusError{Code: 410} },
	} {
		for _, d := range []time.Duration{10 * time.Second, 15 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute} {
			dur := func(c *Config) { c.LeaseDuration = d }
			t.Run(fmt.Sprint("the only pod, after an outage ", name, d), func(t *testing.T) {
				simulate(t, func(w *world) {
					w.free(theSlot)
					a := w.start("a", dur)
					a.link.set(weather)
					a.connect("s1")
					w.within(time.Second, "child runs", func() bool { return a.running("s1") })
					a.link.set(func(l *link) { l.refuse = errors.New("refused") })
					w.pass(3 * time.Minute)
					a.link.set(func(l *link) { l.refuse = nil })
					t.Log(w.within(10*time.Minute, "runs again", func() bool { return a.running("s1") }))
				})
			})
			t.Run(fmt.Sprint("the only pod, after refused writes ", name, d), func(t *testing.T) {
				simulate(t, func(w *world) {
					w.free(theSlot)
					a := w.start("a", dur)
					a.link.set(weather)
					a.connect("s1")
					w.within(time.Second, "child runs", func() bool { return a.running("s1") })
					a.link.set(func(l *link) { l.unwritten = &kube.StatusError{Code: 503} })
					w.pass(5 * time.Minute)
					a.link.set(func(l *link) { l.unwritten = nil })
					t.Log(w.within(10*time.Minute, "runs again", func() bool { return a.running("s1") }))
				})
			})
			t.Run(fmt.Sprint("a standby ", name, d), func(t *testing.T) {
				simulate(t, func(w *world) {
					w.server.put(&kube.Lease{Name: theSlot, Holder: "c_u", DurationSeconds: int(d.Seconds())})
					b := w.start("b", dur)
					b.link.set(weather)
					b.connect("s2")
					for range 5 * time.Minute / (d / 6) { // another pod renews the Lease
						w.edit(func(*kube.Lease) {})
						w.pass(d / 6)
					}
					t.Log(w.within(10*time.Minute, "taken", func() bool { return b.running("s2") }))
				})
			})
		}
	}
}

// The API server refuses all watches, and for five minutes also all writes. After that, both
// Leases still name the pod, which takes both locks back.
func TestPodReacquiresBothLocksEvenIfWatchesFail(t *testing.T) {
	for _, d := range []time.Duration{10 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute} {
		for _, stale := range []bool{false, true} {
			t.Run(fmt.Sprint(d, stale), func(t *testing.T) {
				simulate(t, func(w *world) {
					w.free("lock.a", "lock.b")
					a := w.start("a", both, func(c *Config) { c.LeaseDuration = d })
					a.connect("s1")
					w.within(time.Second, "child runs", func() bool { return a.running("s1") })
					a.link.set(func(l *link) {
						l.unwatched = &kube.StatusError{Code: 403}
						if stale {
							l.unwatched = &kube.StatusError{Code: 410}
						}
						l.unwritten = &kube.StatusError{Code: 503}
					})
					w.breaks()
					w.pass(5 * time.Minute)
					a.link.set(func(l *link) { l.unwritten = nil })
					t.Log(w.within(10*time.Minute, "runs again", func() bool { return a.running("s1") }))
				})
			})
		}
	}
}
