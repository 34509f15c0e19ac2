// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

const (
	// Unanswered means that an application stops for another pod, although no pod that may take the slot
	// has answered the holder's announcement.
	Unanswered = "unanswered"
	// Wanders means that a slot moves more often than hangs and preferences may move it, or to a pod
	// that is not preferred.
	Wanders = "wanders"
	// prepared means that a pod says too early that the holder's application may stop: a node may still send
	// the successor connections, or another pod still forwards them.
	prepared = "prepared"
)

// hung is the reason of a drain because the application hangs, as the Event shows it.
const hung = "Hung"

// Step is a step of the conversation between a holder and a pod that may take its slot.
type Step string

// These are the steps, in their order. A released slot names the pod as its successor.
const (
	Wished    Step = "wish"
	Announced Step = "announcement"
	Answered  Step = "answer"
	Released  Step = "release"
)

// wordCheck has what the pods of all slots have said so far, by the stored writes.
type wordCheck struct {
	// wishes has the wishes, and the instant at which each was first stored.
	wishes map[api.Word]time.Duration
	// answers has the answers to each announcement.
	answers map[string]api.Words
	// last has the last announcement of each hold. The field byHand has the holds of which a person
	// has requested the end.
	last   map[string]announcement
	byHand map[string]bool
	// Moves has the drains for other pods, in their order.
	moves []Move
	// heard is called at each step of a conversation with the identity of the pod; nil for nobody.
	heard func(step Step, identity string)
}

// checkPrepared judges, in quiet times, a pod that says that it is prepared. The successor must have been
// not Ready for the endpoint delay. Any other pod must have seen that the holder serves no more.
func checkPrepared(w *World, by, next string, is *apiserver.Lease) {
	at := slices.IndexFunc(w.Pods, func(p *Pod) bool { return p.Identity() == by })
	if !api.IsNextLease(next) || at < 0 || !w.Calm {
		return
	}
	p := w.Pods[at]
	lease, ok := w.API.Lease(p.Slots[0])
	if !ok {
		return
	}
	id, says, _ := strings.Cut(lease.Annotations[api.LeavingAnnotation], " ")
	says = strings.TrimPrefix(says, api.LeavingSoon+":")
	if !slices.Contains(api.ParseWords(is.Annotations[api.WordsAnnotation]), api.Word{Identity: by, Say: api.Prepared, To: id}) {
		return
	}
	away := w.Now() - p.Shown.unreadyAt
	switch {
	case says == by && (p.Shown.condition || p.Shown.readyAt > 0 && away < time.Duration(float64(p.EndpointDelay)/(1+Skew))):
		w.Checks.Violate(prepared, "%s is prepared, and was Ready %v ago", p.Name, away)
	case says != by && lease.Annotations[api.ServingAnnotation] != "":
		w.Checks.Violate(prepared, "%s is prepared, and the holder serves", p.Name)
	}
}

// announcement is what a holder has announced: an id, and the pod that is asked or named, if any.
type announcement struct {
	id, asked string
	at        time.Duration
	// newer reports that a pod of a newer revision had wished for the slot a while before.
	newer bool
}

// Move is the beginning of a drain for another pod.
type Move struct {
	At time.Duration
	// Held is the time for which the hold has lasted.
	Held  time.Duration
	Child *Child
	// Hung reports that the application hangs. Otherwise, Wish is the wish of the pod To; empty if a
	// person has requested the move.
	Hung bool
	Wish api.Say
	To   string
	// Newer reports that a pod of a newer revision had wished for the slot before the holder announced the move.
	Newer bool
}

func newWordCheck() wordCheck {
	return wordCheck{
		wishes: map[api.Word]time.Duration{}, answers: map[string]api.Words{}, last: map[string]announcement{}, byHand: map[string]bool{},
	}
}

// Moves returns the moves so far.
func (l *checks) Moves() []Move { return l.words.moves }

// HearSteps calls the function "heard" at each later step of a conversation. The caller of "heard" holds the mutex.
func (l *checks) HearSteps(heard func(step Step, identity string)) { l.words.heard = heard }

// Answered reports whether the pod has ever answered that it can take a slot.
func (l *checks) Answered(identity string) bool {
	for _, all := range l.words.answers {
		if slices.ContainsFunc(all, func(w api.Word) bool { return w.Identity == identity && w.Say != api.Stays }) {
			return true
		}
	}
	return false
}

func (k *wordCheck) tell(step Step, identity string) {
	if k.heard != nil && identity != "" {
		k.heard(step, identity)
	}
}

// said notes the words of a next Lease.
func (k *wordCheck) said(l *checks, text string) {
	for _, w := range api.ParseWords(text) {
		if _, known := k.wishes[w]; w.Say.Wish() && !known {
			k.wishes[w] = l.Now()
			k.tell(Wished, w.Identity)
		} else if !w.Say.Wish() && w.Say != api.Supports && !slices.Contains(k.answers[w.To], w) {
			k.answers[w.To] = append(k.answers[w.To], w)
			k.tell(Answered, w.Identity)
		}
	}
}

// announced notes what the Lease of a slot announces.
func (k *wordCheck) announced(l *checks, slot string, is *apiserver.Lease) {
	hold := is.Annotations[api.HoldAnnotation]
	if is.Holder == "" {
		k.tell(Released, is.Annotations[api.SuccessorAnnotation])
		return
	}
	if api.ParseYield(is.Annotations[api.YieldAnnotation]).Hold == hold {
		k.byHand[hold] = true
	}
	id, says, ok := strings.Cut(is.Annotations[api.LeavingAnnotation], " ")
	if !ok || k.last[hold].id == id && k.last[hold].asked != "" {
		return
	}
	asked, soon := api.Asked(says)
	if !soon {
		asked = says
	}
	if k.last[hold].id != id {
		k.tell(Announced, asked)
	}
	k.last[hold] = announcement{id: id, asked: asked, at: l.Now(), newer: k.wishedNewer(l, slot, hold)}
}

// wishedNewer reports whether the next Lease has had the wish of a newer revision for more than a second.
func (k *wordCheck) wishedNewer(l *checks, slot, hold string) bool {
	var p *Pod
	if c := l.Holder(slot); c != nil {
		p = c.Pod()
	}
	if p == nil || !p.w.Calm || p.w.API.Weather != apiserver.Fair {
		return false
	}
	next, ok := p.w.API.Lease(api.NextLease(slot))
	return ok && slices.ContainsFunc(api.ParseWords(next.Annotations[api.WordsAnnotation]), func(w api.Word) bool {
		return w.To == hold && w.Revision.NewerThan(p.Revision) && l.Now()-k.wishes[w] > time.Second
	})
}

// checkAnswered judges the drain for another pod. Unless a person has requested the end of the hold,
// the holder must have announced it, and the pod that it asks must have answered that announcement.
func (l *checks) checkAnswered(c *Child, reason string) {
	k, p := &l.words, c.Pod()
	got := l.acquired[p.Slots[0]]
	if reason != yielded && reason != hung || c.drainBy != 0 || got.hold != c.Hold {
		return
	}
	if a := p.Agent(); k.byHand[c.Hold] || a != nil && a.yieldedAt >= got.at && reason == yielded {
		return
	}
	last := k.last[c.Hold]
	taker := func(w api.Word) bool {
		return w.Say != api.Stays && w.Identity != p.Identity() && (last.asked == "" || last.asked == w.Identity)
	}
	if last.id == "" || !slices.ContainsFunc(k.answers[last.id], taker) {
		l.Violate(Unanswered, "%s is to stop (%s), and nobody has answered %q", c.Name, reason, last.id)
	}
	if slices.ContainsFunc(k.moves, func(m Move) bool { return m.Child.Hold == c.Hold }) {
		return // the move of another container
	}
	// Before its first yield a slot needs no service.
	again := slices.ContainsFunc(k.moves, func(m Move) bool {
		return m.Wish != "" && m.Child.Pod().Slots[0] == p.Slots[0] && l.Now()-m.At < Rest-Rest/10
	})
	move := Move{At: l.Now(), Held: l.Now() - got.at, Child: c, Hung: reason == hung, To: last.asked, Newer: last.newer}
	for w := range k.wishes {
		if w.Identity == last.asked && w.To == c.Hold {
			move.Wish = w.Say
		}
	}
	k.moves = append(k.moves, move)
	// The agent learns within three seconds that the application serves; without a probe, once it runs.
	served := last.at - c.Began
	if p.Behaviour.Probed {
		served -= p.Behaviour.Starts
	}
	quiet := p.w.Calm && p.Healthy() && len(p.Containers) == 1 && p.YieldAfter == 0 && p.Agent() != nil && p.Agent().began < c.Began
	if quiet && again && move.Wish == api.WantsNewer && c.Serves() && served > 3*time.Second && served < Rest-Rest/10 {
		l.Violate(StopsOften, "%s has served for only %v since the last yield, and yields to a newer revision", c.Name, served)
	}
}
