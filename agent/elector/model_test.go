// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// model is an API server with a few Leases, and the pods that claim them. The model uses no
// goroutine. Time passes only in the method "advance".
type model struct {
	now     time.Duration
	began   time.Time
	version int
	leases  []*modelLease
	pods    []*modelPod
	script  *script
	// strays are the writes that a pod has given up, but that have not reached the API server
	// yet.
	strays []stray
	// broken is the first violation of an invariant.
	broken string
	// trace has the events so far, if "traced" is set.
	traced bool
	trace  []string
}

// stray is a write that reaches the API server after its pod has given it up.
type stray struct {
	at      time.Duration
	pod     *modelPod
	process uint64
	request *modelRequest
}

// land delivers the stray writes that are due.
func (m *model) land() {
	for _, s := range slices.Clone(m.strays) {
		if m.now < s.at {
			continue
		}
		m.strays = slices.DeleteFunc(m.strays, func(o stray) bool { return o.request == s.request })
		a := s.request.action
		answer := m.put(s.pod.lease(a.Slot), a)
		if answer.Err == nil && a.Kind != Release && s.process == s.pod.processes {
			s.pod.stored[a.Slot] = s.request.sent
		}
		m.note("%s: stray write %d of %s by %s: %v", s.pod.name, a.Kind, a.Slot, a.Record.Hold, answer.Err)
	}
}

// modelLease is one Lease, with all its versions that a watch may report.
type modelLease struct {
	exists bool
	record lease.Record
	events []modelEvent
	// token is the latest fencing token that was granted.
	token int
}

type modelEvent struct {
	version int
	record  lease.Record
	gone    bool
}

// link decides what happens to a pod's requests and their answers.
type link int

const (
	up      link = iota // each request is answered at once
	cut                 // no request arrives
	deaf                // each request arrives, and its answer is lost
	late                // each request arrives at once, and its answer comes later
	refused             // each request is refused at once
	mute                // each request is answered at once, but no watch delivers an event
	astray              // each write arrives after the pod has given it up
	links
)

// violate notes the first violation.
func (m *model) violate(format string, args ...any) {
	if m.broken == "" {
		m.broken = fmt.Sprintf("at %v: ", m.now) + fmt.Sprintf(format, args...)
	}
}

func (m *model) note(format string, args ...any) {
	if m.traced {
		m.trace = append(m.trace, fmt.Sprintf("%v ", m.now)+fmt.Sprintf(format, args...))
	}
}

// newModel returns the Leases and the pods of a schedule. The pods need any one of the Leases, or
// all of them. In the second case a pod may need only the Leases at the end of the list.
func newModel(s *script, self func(name string) lease.Self) *model {
	m := &model{script: s, began: time.Now()}
	slots := 1 + s.choose(3)
	names := make([]string, slots)
	for i := range names {
		names[i] = "slot-" + strconv.Itoa(i)
		l := &modelLease{}
		m.leases = append(m.leases, l)
		m.store(l, lease.Record{UID: "uid-" + names[i]})
	}
	any := slots > 1 && s.choose(2) == 0
	for i := range 2 + s.choose(2) {
		p := &modelPod{
			model: m, name: string(rune('a' + i)), waiting: true, rate: time.Duration(11 + s.choose(3)), fresh: i == 0,
			skew: time.Duration(s.choose(3)-1) * 45 * time.Second, names: names, any: any, boot: time.Duration(i) * time.Hour,
		}
		p.self = self(p.name)
		if !any && slots > 1 && s.choose(4) == 0 {
			p.names = names[s.choose(slots):] // this pod needs only the last slots
		}
		m.pods = append(m.pods, p)
		p.start()
	}
	return m
}

// store stores a record under a new version.
func (m *model) store(l *modelLease, r lease.Record) lease.Record {
	m.version++
	r.Version = strconv.Itoa(m.version)
	l.exists, l.record = true, r
	l.events = append(l.events, modelEvent{version: m.version, record: r})
	return r
}

// put handles a write as the API server does, by compare-and-swap. A write violates an invariant if
// the write acquires a paused slot or changes a pause.
func (m *model) put(l *modelLease, a Action) Answer {
	r := a.Record
	switch {
	case !l.exists:
		return Answer{Err: errMissing, Missing: true}
	case l.record.UID != r.UID || l.record.Version != r.Version:
		return Answer{Err: errConflict, Conflict: true}
	case a.Kind == Acquire && !a.Resumed && l.record.Paused != "":
		m.violate("%s is acquired by %s, and is paused", a.Slot, r.Holder)
	case l.record.Paused != r.Paused:
		m.violate("an agent pauses or resumes %s", a.Slot)
	}
	return Answer{Record: m.store(l, r)}
}

func (m *model) get(l *modelLease) Answer {
	if !l.exists {
		return Answer{Err: errMissing, Missing: true}
	}
	return Answer{Record: l.record}
}

// remove deletes a Lease. If the Lease does not exist, remove creates it as package enroll does,
// with the holder "unknown".
func (m *model) remove(l *modelLease) {
	if l.exists {
		m.version++
		l.exists = false
		l.events = append(l.events, modelEvent{version: m.version, gone: true})
		m.note("deleted")
		return
	}
	m.note("made anew")
	m.store(l, lease.Record{UID: "uid-" + strconv.Itoa(m.version), Holder: "unknown", Duration: api.DefaultLeaseDuration})
}

// meddle writes a Lease, as any client other than an agent may do. That client takes a free
// Lease and vanishes, or writes a held Lease again.
func (m *model) meddle(l *modelLease) {
	r := l.record
	if r.Holder == "" {
		r.Holder, r.Duration, r.Hold, r.RenewTime = "stranger", api.DefaultLeaseDuration, "", m.began.Add(m.now)
	}
	m.note("stranger writes, holder %q", r.Holder)
	if l.exists {
		m.store(l, r)
	}
}

// pause changes or removes the pause of a slot, as a person does.
func (m *model) pause(l *modelLease) {
	r := l.record
	r.Paused = []api.Pause{"", api.PauseHold, api.PauseStop, "unknown"}[m.script.choose(4)]
	m.note("paused: %q", r.Paused)
	if l.exists {
		m.store(l, r)
	}
}

// ask requests, as a person does, that the holder yields. The request names the given pod, a pod
// that has gone, or no pod as the successor. The request may also name an earlier hold.
func (m *model) ask(l *modelLease, p *modelPod) {
	r := l.record
	r.Yield = api.Yield{Hold: r.Hold, Successor: p.self.Identity}
	switch m.script.choose(4) {
	case 0:
		r.Yield.Successor = ""
	case 1:
		r.Yield.Successor = "gone_u"
	case 2:
		r.Yield.Hold = "an earlier one"
	}
	m.note("asked to yield: %v", r.Yield)
	if l.exists {
		m.store(l, r)
	}
}

// advance lets the time d pass. At each instant for which a pod waits, the pods act.
func (m *model) advance(d time.Duration) {
	for end := m.now + d; ; {
		next := end
		for _, p := range m.pods {
			next = min(next, p.next())
		}
		for _, s := range m.strays {
			next = min(next, s.at)
		}
		m.now = max(m.now, next)
		m.land()
		for _, p := range m.pods {
			p.pass()
		}
		if next >= end || m.broken != "" {
			return
		}
	}
}

// settle delivers all requests and answers that can arrive at this instant.
func (m *model) settle() {
	for again := true; again && m.broken == ""; {
		again = false
		for _, p := range m.pods {
			again = p.deliver() || again
		}
	}
}
