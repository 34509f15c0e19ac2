// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"flag"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// script is a schedule: each byte makes one choice. After its last byte, the script
// always chooses the first option.
type script struct {
	bytes []byte
	at    int
}

func (s *script) choose(n int) int {
	if s.at >= len(s.bytes) {
		return 0
	}
	s.at++
	return int(s.bytes[s.at-1]) % n
}

// pauses are the times that a schedule lets pass.
var pauses = []time.Duration{
	10 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 6 * time.Second, 12 * time.Second,
	25 * time.Second, 40 * time.Second,
}

// events are the choices of a schedule: time that passes, faults, and other events of a pod or
// a Lease.
var events = []func(m *model, p *modelPod, l *modelLease){
	func(m *model, _ *modelPod, _ *modelLease) { m.advance(pauses[m.script.choose(len(pauses))]) },
	func(m *model, _ *modelPod, _ *modelLease) { m.advance(pauses[m.script.choose(len(pauses))]) },
	func(m *model, _ *modelPod, _ *modelLease) { m.advance(pauses[m.script.choose(len(pauses))]) },
	func(m *model, p *modelPod, _ *modelLease) { p.link = link(m.script.choose(int(links))) },
	func(m *model, p *modelPod, _ *modelLease) { p.link = link(m.script.choose(int(links))) },
	func(_ *model, p *modelPod, _ *modelLease) { p.link = up },
	func(m *model, p *modelPod, _ *modelLease) { p.endWatches(m.script.choose(2) == 0) },
	func(m *model, _ *modelPod, l *modelLease) { m.remove(l) },
	func(m *model, _ *modelPod, l *modelLease) { m.meddle(l) },
	func(m *model, _ *modelPod, l *modelLease) { m.pause(l) },
	func(m *model, p *modelPod, l *modelLease) { m.ask(l, p) },
	func(_ *model, p *modelPod, _ *modelLease) { p.restart() },
	func(_ *model, p *modelPod, _ *modelLease) { p.heard = true },
	func(_ *model, p *modelPod, _ *modelLease) { p.yield() },
	func(_ *model, p *modelPod, _ *modelLease) { p.end() },
	func(_ *model, p *modelPod, _ *modelLease) { p.waiting = !p.waiting },
	func(_ *model, p *modelPod, _ *modelLease) { p.frozen = !p.frozen },
	func(_ *model, p *modelPod, _ *modelLease) { p.claim.Leapt(p.local()) },
	func(_ *model, p *modelPod, _ *modelLease) { p.stop() },
	func(_ *model, p *modelPod, _ *modelLease) { p.quick = !p.quick },
}

func (p *modelPod) endWatches(inOrder bool) {
	for _, l := range append([]*modelLook(nil), p.looks...) {
		end := Answer{}
		if !inOrder {
			end.Err = errCut
		}
		if l.watching {
			p.endLook(l, end)
		}
	}
}

// restart replaces the agent process, while the child runs on.
func (p *modelPod) restart() {
	if !p.leaving {
		p.model.note("%s: restarts", p.name)
		p.start()
	}
}

// yield makes the agent end its hold. The child stops at once.
func (p *modelPod) yield() {
	if p.hold != "" && p.drains == 0 {
		p.drain()
		if p.child != nil {
			p.die("as asked")
		}
	}
}

// end lets the child end by itself.
func (p *modelPod) end() {
	if p.child != nil {
		p.die("by itself")
	}
}

// stop makes the agent end. The child stops at once.
func (p *modelPod) stop() {
	p.leaving = true
	p.end()
	p.claim.Stop(p.local())
}

// playModel plays a schedule to its end. After some schedules playModel ends all faults, and checks
// that enough pods run soon.
func playModel(s *script, model func(*script, func(string) lease.Self) *model, self func(string) lease.Self, traced bool) *model {
	heals := s.choose(8) == 7
	m := model(s, self)
	m.traced = traced
	m.settle()
	for s.at < len(s.bytes) && m.broken == "" {
		p := m.pods[s.choose(len(m.pods))]
		l := m.leases[s.choose(len(m.leases))]
		if p.readers > 0 && s.choose(4) == 0 {
			p.writes = !p.writes
		}
		events[s.choose(len(events))](m, p, l)
		if !p.frozen {
			p.step()
		}
		m.settle()
	}
	if heals && m.broken == "" {
		m.heal()
	}
	return m
}

// inTime bounds how long a slot has no holder after the last fault. A standby waits until the
// Lease expires. Then the standby waits for a sixth of the duration, in which only the last holder
// acquires. Before the first wait, and after the second wait, the time between two looks may pass.
// All of that may come twice, because a campaign may fail. The clocks of the pods differ by the
// factor 13/12.
const inTime = 2*(api.DefaultLeaseDuration*7/6*13/12) + 4*slowest

// heal ends all faults. After the time inTime, heal checks that enough pods run.
func (m *model) heal() {
	m.note("all faults end")
	for _, l := range m.leases {
		if !l.exists {
			m.remove(l)
		}
		if r := l.record; r.Paused != "" {
			r.Paused = ""
			m.store(l, r)
		}
	}
	stay := 0
	for _, p := range m.pods {
		p.link, p.frozen, p.waiting, p.heard = up, false, true, true
		if !p.leaving {
			stay++
		}
	}
	for _, p := range m.pods {
		p.endWatches(false)
		p.step()
	}
	m.settle()
	m.advance(inTime)
	holders := 0
	for _, p := range m.pods {
		if p.child != nil {
			holders++
		}
	}
	want := min(stay, 1)
	if m.pods[0].any || m.pods[0].readers > 0 && !slices.ContainsFunc(m.pods, (*modelPod).isWriter) {
		want = min(stay, m.places())
	}
	if holders < want {
		m.violate("%d pods run, of %d that could", holders, want)
	}
}

// identities returns a function from a pod's name to its [lease.Self]. The name also decides
// the lease duration.
func identities(t testing.TB) func(string) lease.Self {
	known := map[string]lease.Self{}
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		known[name] = self(t, name, []time.Duration{api.DefaultLeaseDuration, api.DefaultLeaseDuration / 2}[i%2])
	}
	return func(name string) lease.Self { return known[name] }
}

// isWriter reports whether the pod wants to write, or has a child that may write.
func (p *modelPod) isWriter() bool { return p.writes || p.child != nil && p.child.writes }

// places returns how many pods can run at once while no pod wants to write.
func (m *model) places() int {
	if n := m.pods[0].readers; n > 0 {
		for _, p := range m.pods {
			n = min(n, p.readers)
		}
		return n
	}
	return len(m.leases)
}

// judge plays a schedule. If an invariant breaks, judge fails the test with the trace of the
// schedule.
func judge(t testing.TB, bytes []byte, self func(string) lease.Self) {
	judgeModel(t, bytes, newModel, self)
}

func judgeModel(t testing.TB, bytes []byte, model func(*script, func(string) lease.Self) *model, self func(string) lease.Self) {
	if m := playModel(&script{bytes: bytes}, model, self, false); m.broken != "" {
		m = playModel(&script{bytes: bytes}, model, self, true)
		require.FailNow(t, m.broken, "schedule %x:\n%s", bytes, strings.Join(m.trace, "\n"))
	}
}

var schedules = flag.Int("schedules", 10_000, "random schedules that TestClaimsKeepInvariantsInRandomSchedules plays; -short plays a tenth")

func rounds() int {
	if testing.Short() {
		return *schedules / 10
	}
	return *schedules
}

// TestClaimsKeepInvariantsInRandomSchedules plays random schedules, most of them short,
// without package synctest. Each processor plays an equal number of schedules.
func TestClaimsKeepInvariantsInRandomSchedules(t *testing.T) {
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		t.Run(strconv.Itoa(worker), func(t *testing.T) {
			t.Parallel()
			self, random := identities(t), modelRandom(worker) //nolint:gosec // a seed
			for range rounds() / workers {
				judge(t, random.schedule(), self)
			}
		})
	}
}

// schedule returns random choices.
func (r *modelRandom) schedule() []byte {
	length := 8 + r.Uint64()%64
	if r.Uint64()%16 == 0 {
		length = 400
	}
	bytes := make([]byte, length)
	for i := range bytes {
		bytes[i] = byte(r.Uint64() >> 11) //nolint:gosec // any byte
	}
	return bytes
}

func FuzzClaimsKeepInvariantsInAnySchedule(f *testing.F) {
	self := identities(f)
	f.Add([]byte("no fault at all"))
	f.Fuzz(func(t *testing.T, bytes []byte) {
		if len(bytes) <= 512 {
			judge(t, bytes, self)
		}
	})
}
