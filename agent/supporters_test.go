// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/promise"
	"github.com/metaparticle-io/metaparticle/api"
)

// peers is a network of pods, in which messages take no time.
type peers struct {
	*world
	mu sync.Mutex // guards all fields, and the pods of the world, in which tests change something only in change
	// deaf has the pods that get no message.
	deaf map[string]bool
	// asks are the messages that have arrived, the last one at the pod "asked", and answer changes an answer if it is set.
	asks   []string
	asked  string
	answer func(answer string) string
	// times are the instants at which the asks have arrived, and an answer is on its way for the time "takes".
	times []time.Duration
	takes time.Duration
	// strangers answers for all addresses of no pod.
	strangers func(ctx context.Context, to netip.AddrPort, message string) (string, error)
}

// supported starts pods with a network, in the order of the names, of which the first one holds.
func supported(w *world, names ...string) *peers {
	n := &peers{world: w, deaf: map[string]bool{}}
	w.free(theSlot, api.NextLease(theSlot))
	for _, name := range names {
		n.start(name).connect("s1")
		w.pass(100 * time.Millisecond)
	}
	w.within(time.Second, "the child runs", func() bool { return w.pods[names[0]].running("s1") })
	w.within(30*time.Second, "the holder has its supporters", func() bool {
		return len(n.list().IDs) == min(len(names)-1, api.MostSupporters)
	})
	return n
}

func (n *peers) start(name string, change ...func(c *Config)) *pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.world.start(name, append(change, func(c *Config) {
		c.Failsafe = api.Failsafe{Outage: 10 * time.Minute}
		c.Contact = netip.AddrPortFrom(netip.MustParseAddr(c.PodIP), 15090)
		c.Ask = n.ask(c.PodName)
	})...)
}

// restart replaces the agent process of a standby.
func (n *peers) restart(name string) {
	n.pods[name].kill()
	n.start(name).connect("s1")
}

// dies ends a pod with its node.
func (n *peers) dies(name string) {
	n.pods[name].kill()
	n.change(func() { delete(n.pods, name) })
}

// lists reports whether the Lease names exactly the present agent processes of the pods.
func (n *peers) lists(names ...string) bool {
	list := n.list()
	return len(list.IDs) == len(names) && !slices.ContainsFunc(names, func(name string) bool { return !list.Has(n.pods[name].supporterID()) })
}

func (n *peers) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *peers) ask(from string) func(ctx context.Context, to netip.AddrPort, message string) (string, error) {
	return func(ctx context.Context, to netip.AddrPort, message string) (string, error) {
		n.mu.Lock()
		var asked *Agent
		stranger, takes := n.strangers, n.takes
		for name, p := range n.pods {
			if p.config.Contact == to && !n.deaf[name] && !n.deaf[from] && !p.gone() {
				assert.NotEqual(n.t, from, name, "a pod that asks itself")
				n.asks, n.asked, asked = append(n.asks, message), name, p.agent
				n.times = append(n.times, n.clock())
			}
		}
		n.mu.Unlock()
		switch {
		case asked == nil && stranger == nil:
			return "", errors.New("no route")
		case asked == nil:
			return stranger(ctx, to, message)
		}
		answer, err := asked.Answer(ctx, message)
		<-time.After(takes)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.answer != nil {
			answer = n.answer(answer)
		}
		return answer, err
	}
}

// supporterID returns the ID of the pod's present agent process.
func (p *pod) supporterID() string { return api.SupporterID(p.identity(), p.agent.state.self.Key) }

// gone reports whether the pod's agent process has ended.
func (p *pod) gone() bool { return len(p.done) > 0 }

func (n *peers) list() api.Supporters {
	l := n.server.lease(theSlot)
	return api.ParseSupporters(l.Annotations[api.SupportersAnnotation], l.Holder, l.Annotations[api.HoldAnnotation])
}

// all changes the links of all pods.
func (n *peers) all(f func(l *link)) {
	for _, p := range n.pods {
		p.link.set(f)
	}
}

// runs returns the names of the pods whose child runs or stops.
func (n *peers) runs() (names []string) {
	for name, p := range n.pods {
		if hold := p.gates.hold("s1"); hold != "" {
			names = append(names, name)
		}
	}
	return names
}

// everywhere are outages that all pods see.
var everywhere = map[string]func(l *link){
	"no answer":   func(l *link) { l.cut = true },
	"writes fail": func(l *link) { l.unwritten = &kube.StatusError{Code: 500} },
	"slow writes": func(l *link) { l.slow = 8 * time.Second },
}

func over(l *link) { l.cut, l.unwritten, l.slow = false, nil, 0 }

func TestApplicationSurvivesAnOutageByPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, begin := range everywhere {
		for _, pods := range [][]string{{"a", "b"}, {"a", "b", "c", "d"}} {
			t.Run(name, simulated(func(t *testing.T, w *world) {
				n := supported(w, pods...)
				a := n.pods["a"]
				hold := a.gates.hold("s1")
				assert.Equal(t, 750, w.server.lease(theSlot).DurationSeconds)
				w.pass(time.Minute)
				n.all(begin)
				w.pass(5 * time.Minute)
				assert.True(t, a.running("s1"))
				a.gates.fail("s1")
				w.pass(10 * time.Second) // the kubelet starts the container again
				a.connect("s2")
				w.within(time.Second, "the application runs again", func() bool { return a.running("s2") })
				w.pass(4*time.Minute + 50*time.Second)
				n.all(over)
				w.pass(time.Minute)
				assert.True(t, a.running("s2"))
				assert.Empty(t, a.gates.told(), "no order to stop")
				assert.Equal(t, hold, w.holdID())
				assert.Equal(t, hold, a.gates.hold("s2"))
			}))
		}
	}
}

// The standby counts from the receipt of the ask, so the holder counts from before that, however late the answer is.
func TestPromiseCountsFromTheAsk(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b")
		a := n.pods["a"]
		n.change(func() { n.takes = 1500 * time.Millisecond })
		w.pass(time.Minute)
		n.all(func(l *link) { l.cut = true })
		w.pass(10 * time.Second)
		began := w.clock()
		w.pass(time.Minute)
		require.True(t, a.running("s1"))
		prolonged := 0
		for _, g := range a.gates.given() {
			if asked := g.Deadline - 25*time.Second; asked > began {
				prolonged++
				assert.Contains(t, n.times, asked)
			}
		}
		assert.Greater(t, prolonged, 20, "a promise every two seconds")
	})
}

func TestApplicationStopsOnceTheLongLeaseEnds(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b")
		w.pass(time.Minute)
		n.all(func(l *link) { l.cut = true })
		w.pass(10 * time.Minute)
		a := n.pods["a"]
		assert.True(t, a.running("s1"))
		w.within(time.Minute, "the application stops", a.stopped)
		assert.Contains(t, a.gates.told(), ends.CutOff.Reason)
		n.pods["b"].link.set(over)
		w.within(time.Minute, "b runs", func() bool { return n.pods["b"].running("s1") })
	})
}

// A full disk of etcd may let a write pass now and then. As long as not all writes are stored, the supporter could not
// take the slot either.
func TestFewStoredWritesEndNoSupport(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b")
		a, b := n.pods["a"], n.pods["b"]
		w.pass(time.Minute)
		n.all(everywhere["writes fail"])
		w.pass(20 * time.Second)
		for range 20 {
			stored := w.server.lease(api.NextLease(theSlot)).ResourceVersion
			b.link.set(over)
			w.within(10*time.Second, "a write of the supporter is stored", func() bool { return w.server.lease(api.NextLease(theSlot)).ResourceVersion != stored })
			b.link.set(everywhere["writes fail"])
			w.pass(10 * time.Second)
		}
		assert.True(t, a.running("s1"))
	})
}

// requestsOf returns the numbers of a pod's reads, writes and watches since the time.
func (n *peers) requestsOf(name string, since time.Time) (reads, writes, watches int) {
	for _, r := range n.server.Requests("get", "put", "watch") {
		if r.By != name || r.At.Before(since) {
			continue
		}
		switch r.Verb {
		case "get":
			reads++
		case "put":
			writes++
		default:
			watches++
		}
	}
	return reads, writes, watches
}

// All pods of a cluster see an outage at once, and must not keep the API server from recovering. Print the figures
// with -v.
func TestOutageCausesFewRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	type bound struct{ reads, writes int }
	for name, c := range map[string]struct{ holder, supporter bound }{
		"no answer":   {holder: bound{70, 200}, supporter: bound{230, 0}},
		"writes fail": {holder: bound{10, 200}, supporter: bound{190, 120}},
		"slow writes": {holder: bound{80, 620}, supporter: bound{160, 120}},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			n := supported(w, "a", "b", "c", "d")
			w.pass(10 * time.Minute)
			for _, phase := range []struct {
				what   string
				length time.Duration
				change func(*link)
				most   map[string]bound
			}{
				{"in the outage of 590 s", 590 * time.Second, everywhere[name], map[string]bound{"a": c.holder, "b": c.supporter, "c": c.supporter}},
				{"in 30 s after it", 30 * time.Second, over, map[string]bound{"a": {3, 8}, "b": {7, 4}, "c": {7, 4}}},
			} {
				since := time.Now()
				n.all(phase.change)
				w.pass(phase.length)
				for _, pod := range []string{"a", "b", "c", "d"} {
					reads, writes, watches := n.requestsOf(pod, since)
					t.Logf("%s, %s, %s: %d reads, %d writes, %d watches", name, phase.what, pod, reads, writes, watches)
					if most, ok := phase.most[pod]; ok {
						assert.LessOrEqual(t, reads, most.reads, "reads of %s %s", pod, phase.what)
						assert.LessOrEqual(t, writes, most.writes, "writes of %s %s", pod, phase.what)
					}
				}
			}
			assert.True(t, n.pods["a"].running("s1"))
		}))
	}
}

// Nothing is known of a dead holder, so the listed standbys wait as long as without the annotation, and the others
// for the whole Lease.
func TestSupporterTakesTheSlotOfADeadHolder(t *testing.T) {
	for name, c := range map[string]struct {
		deaf, after string
		least, most time.Duration
	}{
		"a supporter":          {"", "", 25 * time.Second, 32 * time.Second},
		"nobody else is there": {"b", "12m30s", 12 * time.Minute, 13 * time.Minute},
	} {
		t.Run(name, simulated(func(_ *testing.T, w *world) {
			n := supported(w, "a", "b")
			w.pass(time.Minute)
			if c.deaf != "" {
				n.pods[c.deaf].kill()
				d := n.start("d")
				d.connect("s1")
				n.change(func() { n.deaf["d"] = true })
				w.pass(3 * time.Second)
			}
			n.pods["a"].kill()
			n.change(func() { delete(n.pods, "a") })
			took := w.within(c.most, "another pod runs", func() bool { return len(n.runs()) > 0 })
			assert.GreaterOrEqual(w.t, took, c.least)
		}))
	}
}

// The standbys reach the API server, so they promise nothing after a while, and one takes the slot.
func TestHolderThatAloneIsCutOffHandsOver(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b", "c")
		a := n.pods["a"]
		w.pass(time.Minute)
		a.link.set(func(l *link) { l.cut = true })
		stopped := w.within(40*time.Second, "the application stops", a.stopped)
		assert.Greater(t, stopped, 16*time.Second, "later than without the annotation")
		took := w.within(45*time.Second, "another pod runs", func() bool { return n.pods["b"].running("s1") || n.pods["c"].running("s1") })
		assert.LessOrEqual(t, stopped+took, 71*time.Second)
	})
}

// What ends a ride does it by a drain, before anybody could take the slot.
func TestRideEndsWithASupporter(t *testing.T) {
	for name, ends := range map[string]func(n *peers){
		"it is silent": func(n *peers) { n.change(func() { n.deaf["b"] = true }) },
		"its agent restarts": func(n *peers) {
			n.pods["b"].kill()
			n.start("b")
		},
		"another key signs": func(n *peers) {
			other := promise.NewKey(n.pods["a"].config.Random)
			n.change(func() {
				n.answer = func(string) string {
					a, _ := promise.Expected{By: n.list().Key, To: n.pods[n.asked].supporterID(), Hold: n.holdID()}.Ask(n.asks[len(n.asks)-1])
					return other.Promise(a)
				}
			})
		},
		"it repeats an old promise": func(n *peers) {
			last := ""
			n.change(func() {
				n.answer = func(answer string) string {
					if last == "" {
						last = answer
					}
					return last
				}
			})
		},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			n := supported(w, "a", "b", "c")
			a := n.pods["a"]
			w.pass(time.Minute)
			n.all(func(l *link) { l.cut = true })
			w.pass(time.Minute)
			require.True(t, a.running("s1"))
			ends(n)
			took := w.within(30*time.Second, "the application stops", a.stopped)
			assert.InDelta(t, 15, took.Seconds(), 3)
			w.pass(5 * time.Second)
			n.all(over)
			w.within(90*time.Second, "somebody runs", func() bool { return len(n.runs()) == 1 })
		}))
	}
}

// A new agent process of the holder knows of no promise, and gets none that counts.
func TestHoldersChildEndsAfterARestartInTheOutage(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b")
		w.pass(time.Minute)
		n.all(func(l *link) { l.cut = true })
		w.pass(time.Minute)
		n.pods["a"].kill()
		a := n.start("a")
		a.gates.connect(a.gates.shim("s1").report)
		w.within(25*time.Second, "the application stops", a.stopped)
	})
}

// A pod promises nothing to whom it must not, and what it must not.
func TestStandbyPromisesOnlyToItsHolder(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b")
		a, b := n.pods["a"], n.pods["b"]
		other := promise.NewKey(a.config.Random)
		hold, key, to := w.holdID(), a.agent.state.key, b.supporterID()
		number := int64(w.clock()) + int64(time.Hour)
		for name, message := range map[string]string{
			"another key":                other.Ask(promise.Ask{To: to, Hold: hold, Number: number}),
			"another hold":               key.Ask(promise.Ask{To: to, Hold: "h0", Number: number}),
			"to another":                 key.Ask(promise.Ask{To: a.supporterID(), Hold: hold, Number: number + 1}),
			"to a pod with a stolen key": key.Ask(promise.Ask{To: api.SupporterID("x_u", b.agent.state.self.Key), Hold: hold, Number: number + 1}),
			"an old ask":                 n.asks[len(n.asks)-1],
			"too long":                   key.Ask(promise.Ask{To: to, Hold: hold, Number: number, For: 751 * time.Second}),
			"no message":                 "",
		} {
			ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
			_, err := b.agent.Answer(ctx, message)
			require.ErrorIs(t, err, errPromisesNothing, name)
			cancel()
		}
		_, err := a.agent.Answer(w.t.Context(), key.Ask(promise.Ask{To: a.supporterID(), Hold: hold, Number: number + 1}))
		require.ErrorIs(t, err, errPromisesNothing, "a holder")
		answer, err := b.agent.Answer(w.t.Context(), key.Ask(promise.Ask{To: to, Hold: hold, Number: number + 1}))
		require.NoError(t, err)
		assert.NotEmpty(t, answer)
		synctest.Wait()
	})
}

// flood writes a new offer of the pod x into the next Lease again and again, with a key and an address that f chooses.
func (n *peers) flood(times int, f func(i int) api.Contact) {
	for i := range times {
		l := n.server.lease(api.NextLease(theSlot))
		words, _ := api.ParseWords(l.Annotations[api.WordsAnnotation]).With(
			api.Word{Identity: "x_u", Say: api.Supports, To: n.holdID(), Contact: f(i), At: int64(i)}, true)
		l.Annotations = map[string]string{api.WordsAnnotation: words.String()}
		n.server.put(&l)
		n.pass(10 * time.Millisecond)
	}
}

// Each ask is a connection, which takes memory until it ends. A hostile pod of the same service account can change
// its offer many times a second.
func TestHolderBoundsItsAsksDespiteAFloodOfOffers(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, answers := range map[string]bool{"nobody answers": false, "all are answered": true} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			n := supported(w, "a", "b")
			before, open, most, asks := n.list(), 0, 0, 0
			var mu sync.Mutex
			keys := map[netip.AddrPort]promise.Key{}
			n.strangers = func(ctx context.Context, to netip.AddrPort, message string) (string, error) {
				mu.Lock()
				asks, open = asks+1, open+1
				most = max(most, open)
				key := keys[to]
				mu.Unlock()
				defer func() {
					mu.Lock()
					open--
					mu.Unlock()
				}()
				if !answers {
					<-ctx.Done()
					return "", ctx.Err()
				}
				a, ok := promise.Expected{By: before.Key, To: api.SupporterID("x_u", key.Public()), Hold: n.holdID()}.Ask(message)
				assert.True(t, ok)
				return key.Promise(a), nil
			}
			n.flood(3000, func(i int) api.Contact {
				at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 15090)
				mu.Lock()
				defer mu.Unlock()
				keys[at] = promise.NewKey(rand.NewPCG(uint64(i), 3))
				return api.Contact{Address: at, Key: keys[at].Public()}
			})
			assert.Positive(t, asks)
			assert.LessOrEqual(t, most, api.MostWords)
			assert.LessOrEqual(t, asks, 15*api.MostWords, "in half a minute")
			assert.Subset(t, n.list().IDs, before.IDs)
		}))
	}
}

// The address of an offer comes from a pod of the same service account, and the holder reaches what only its own
// pod or node may.
func TestHolderAsksOnlyTheAgentsPortOfOtherPods(t *testing.T) {
	for _, to := range []string{
		"127.0.0.1:15090", "[::1]:15090", "[::ffff:127.0.0.1]:15090", "0.0.0.0:15090", "169.254.169.254:15090",
		"[fe80::1]:15090", "[fd00:ec2::254]:15090", "224.0.0.1:15090", "10.0.0.1:15090", "[::ffff:10.0.0.1]:15090",
		"10.9.0.1:80", "10.9.0.1:0",
	} {
		t.Run(to, simulated(func(t *testing.T, w *world) {
			n := supported(w, "a", "b")
			require.Equal(t, "10.0.0.1", n.pods["a"].config.PodIP)
			n.strangers = func(context.Context, netip.AddrPort, string) (string, error) {
				assert.Fail(t, "asked")
				return "", errPromisesNothing
			}
			key := promise.NewKey(rand.NewPCG(9, 9)).Public()
			n.flood(100, func(int) api.Contact { return api.Contact{Address: netip.MustParseAddrPort(to), Key: key} })
			w.pass(time.Minute)
		}))
	}
}
