// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

type modelRequest struct {
	action Action
	sent   time.Duration
	// arrived reports that the API server has received the request. The field "answer" is the
	// server's answer.
	arrived bool
	answer  Answer
	lost    bool
	// answerAt is the instant at which the pod receives a late answer.
	answerAt time.Duration
}

type modelLook struct {
	action   Action
	sent     time.Duration
	watching bool
	// version is the version from which the watch continues.
	version int
}

func (p *modelPod) answered(r *modelRequest, answer Answer) {
	p.requests = slices.DeleteFunc(p.requests, func(o *modelRequest) bool { return o == r })
	_ = p.claim.answered(p.local(), r.action, answer)
}

func (p *modelPod) endLook(l *modelLook, end Answer) {
	p.looks = slices.DeleteFunc(p.looks, func(o *modelLook) bool { return o == l })
	l.action.LookEnded(p.local(), strconv.Itoa(l.version), end)
}

// execute does what an action demands: execute sends a read or a write, begins a look, or ends a look.
func (p *modelPod) execute(a Action) {
	now := p.local()
	switch a.Kind {
	case EndLook:
		p.looks = slices.DeleteFunc(p.looks, func(l *modelLook) bool { return l.action.Slot == a.Slot })
		return
	case StandBack:
		return
	case Look:
		version, _ := strconv.Atoi(a.From)
		p.looks = append(p.looks, &modelLook{action: a, sent: now, watching: a.From != "", version: version})
	case Acquire:
		if !a.Resumed && !slices.Contains(p.begun, a.Record.Hold) {
			p.begun = append(p.begun, a.Record.Hold)
		}
		p.ordered(a)
	case Release:
		p.released(a)
	default: // a renewal or a read needs nothing further
	}
	p.count(a, now)
	if a.Kind != Look {
		p.requests = append(p.requests, &modelRequest{action: a, sent: now})
	}
}

// count checks that the requests of the last minute for a slot are within the bounds.
func (p *modelPod) count(a Action, now time.Duration) {
	sent := append(p.sent[a.Slot], now)
	for len(sent) > 0 && sent[0] <= now-time.Minute {
		sent = sent[1:]
	}
	p.sent[a.Slot] = sent
	if len(sent) > PerMinute+Burst {
		p.model.violate("%s: %d requests for %s within a minute", p.name, len(sent), a.Slot)
	}
}

// ordered checks that a pod that needs all its slots acquires these slots in their order.
func (p *modelPod) ordered(a Action) {
	for _, v := range p.claim.Views() {
		if p.any || v.Slot == a.Slot || p.readers > 0 && !p.writes {
			return
		}
		if !v.Mine {
			p.model.violate("%s acquires %s without %s", p.name, a.Slot, v.Slot)
		}
	}
}

// released checks that the model has no living child of the released hold. The knowledge of the
// agent process does not matter here.
func (p *modelPod) released(a Action) {
	if p.child != nil && p.child.hold == a.Hold && strings.Contains(p.lease(a.Slot).record.Holder, p.name+"_") {
		p.model.violate("%s releases %s, and its child is alive", p.name, a.Slot)
	}
}

// deliver lets one request reach the API server, or lets one look read or watch its Lease, if the
// link permits that. The result is false if neither was possible.
func (p *modelPod) deliver() bool {
	if p.link == cut || p.frozen {
		return false
	}
	for _, r := range p.requests {
		if !r.arrived && (p.link != astray || r.action.Kind == Read) {
			p.arrive(r)
			return true
		}
	}
	if slices.ContainsFunc(p.looks, p.see) {
		p.step()
		return true
	}
	return false
}

// arrive lets a request reach the API server.
func (p *modelPod) arrive(r *modelRequest) {
	r.arrived = true
	switch {
	case p.link == refused:
		r.answer = Answer{Err: errRefused}
	case r.action.Kind == Read:
		r.answer = p.model.get(p.lease(r.action.Slot))
	default:
		r.answer = p.model.put(p.lease(r.action.Slot), r.action)
		if r.answer.Err == nil && r.action.Kind != Release {
			p.stored[r.action.Slot] = r.sent
		}
		p.model.note("%s: write %d of %s by %s: %v", p.name, r.action.Kind, r.action.Slot, r.action.Record.Hold, r.answer.Err)
	}
	r.lost = p.link == deaf
	if p.link == late {
		r.answerAt = p.local() + time.Duration(1+p.model.script.choose(6))*time.Second
	}
	if p.link != late && !r.lost {
		p.answered(r, r.answer)
		p.step()
	}
}

// see lets a look read its Lease, or delivers one event of the look's watch. The result is false if
// there is nothing to deliver.
func (p *modelPod) see(l *modelLook) bool {
	at, read := p.lease(l.action.Slot), up
	if !l.watching {
		read = p.reads[l.action.Slot]
	}
	switch {
	case p.link == refused || p.unwatched && l.watching || read == refused:
		p.endLook(l, Answer{Err: errRefused})
	case p.link == deaf || p.link == mute && l.watching || read == deaf:
		return false
	case !l.watching && !at.exists:
		p.endLook(l, Answer{Err: errMissing, Missing: true})
	case !l.watching:
		l.watching = true
		l.version, _ = strconv.Atoi(at.record.Version)
		p.count(l.action, p.local()) // the watch is another request
		l.action.Read(p.local(), at.record)
	default:
		i := slices.IndexFunc(at.events, func(e modelEvent) bool { return e.version > l.version })
		if i < 0 {
			return false
		}
		l.version = at.events[i].version
		if at.events[i].gone {
			l.action.Gone(p.local())
			return true
		}
		l.action.Watched(p.local(), at.events[i].record)
	}
	return true
}
