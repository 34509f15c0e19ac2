// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// Talk is what the pods of a slot say to each other about the end of the present hold.
type Talk struct {
	// Wishes are the pods that wish for the slot.
	Wishes []Said `json:"wishes,omitempty"`
	// Leaves reports that the holder has announced its end. Asks is the pod without whose answer the hold goes
	// on; empty if any answer counts, or none is needed any more. Follows is the successor.
	Leaves  bool   `json:"leaves,omitempty"`
	Asks    string `json:"asks,omitempty"`
	Follows string `json:"follows,omitempty"`
	// Answers are the answers to that announcement.
	Answers []Said `json:"answers,omitempty"`
}

// Said is what one pod says.
type Said struct {
	Pod string  `json:"pod"`
	Say api.Say `json:"say"`
	// Since is the time of a wish, by the clock of that pod.
	Since *time.Time `json:"since,omitempty"`
}

// Wait is what a rollout waits for.
type Wait struct {
	// For is the minute of service before a holder yields (Service), the proof of a revision that has its turn (Turn),
	// or the next turn of a revision whose turn has failed (NextTurn).
	For string `json:"for"`
	// Until is the instant at which the wait ends, if nothing happens; nil if that is unknown.
	Until *time.Time `json:"until,omitempty"`
}

// Moved is the last release of a slot, as the Lease has it.
type Moved struct {
	From   string  `json:"from"`
	Reason string  `json:"reason"`
	Wish   api.Say `json:"wish,omitempty"`
	// Cause is why the application ended, if Events tell, and no other reason does.
	Cause string `json:"cause,omitempty"`
}

// String returns the text for people.
func (m Moved) String() string {
	to := map[api.Say]string{
		api.WantsNewer: " to a newer revision", api.WantsBack: " to the proven revision", api.WantsPreferred: " to a preferred pod",
	}
	reason := m.Reason
	if reason == api.ReasonEnded {
		reason = cmp.Or(m.Cause, "its application ended")
	}
	return m.From + " (" + reason + to[m.Wish] + ")"
}

// answers says for people what a pod answers.
var answers = map[api.Say]string{
	api.Takes: "can take the slot", api.Stays: "stays Ready", api.Either: "can take the slot, or stay Ready", api.Prepared: "is prepared",
}

// conversation has the facts from which the fields Talk, Moved and Why of a slot are computed.
type conversation struct {
	*Slot
	words api.Words
	// alone reports enroll's hint that no other pod claims the slot.
	alone bool
	// rollout is zero if the Lease has none, or an outdated one. The field "turns" reports that the agent of the
	// present hold has written it.
	rollout api.Rollout
	turns   bool
	// now is the caller's present; zero if the caller has none.
	now time.Time
}

// converse stores what the pods of the slot say to each other, and why its next move waits. The Lease "next"
// is nil if the slot has no next Lease. The standbys must be known.
func (s *Slot) converse(l, next *coordinationv1.Lease, now time.Time) {
	note := func(key string) string { return api.Shortened(l.Annotations[key], Notes[key]) }
	c := conversation{Slot: s, now: now}
	c.rollout = api.ParseRollout(note(api.RolloutAnnotation)).Current(int(s.Transitions))
	if m := c.rollout.Moved; m.From != "" {
		s.Moved = &Moved{From: api.PodOf(api.Shortened(m.From, MaxIdentity)), Reason: api.Shortened(m.Why, MaxWord), Wish: api.Say(api.Shortened(string(m.Wish), MaxWord))}
		if m.Why == api.ReasonEnded && s.Holder != nil && len(s.Handovers) > 0 {
			if h := s.Handovers[0]; h.Pod == s.Holder.Pod && h.From == s.Moved.From {
				s.Moved.Cause = h.Cause
			}
		}
	}
	if s.Holder == nil || s.Holder.Hold == "" {
		return
	}
	c.turns = c.rollout.Hold == s.Holder.Hold && c.rollout.Yields != ""
	if next != nil {
		c.words = api.ParseWords(api.Shortened(next.Annotations[api.WordsAnnotation], MaxWords))
		c.alone = next.Annotations[api.AloneAnnotation] == api.AloneTrue
	}
	c.listen(note(api.LeavingAnnotation))
	for _, text := range []string{c.ends(), c.waits(), c.hangs(), c.prefers(), c.unsupported(), c.survives()} {
		if text != "" {
			s.Why = append(s.Why, text)
		}
	}
}

// listen stores the Talk of the slot. The argument is the holder's announcement.
func (c conversation) listen(leaving string) {
	var t Talk
	announced, says, _ := strings.Cut(leaving, " ")
	if of, _, _ := strings.Cut(announced, "."); of == c.Holder.Hold {
		asked, soon := api.Asked(says)
		t.Leaves, t.Asks = true, api.PodOf(asked)
		if !soon {
			t.Follows = api.PodOf(says)
		}
	}
	for _, w := range c.words {
		said := Said{Pod: api.PodOf(w.Identity), Say: w.Say}
		switch {
		case w.Say.Wish() && w.To == c.Holder.Hold:
			said.Since = instant(time.UnixMilli(w.At))
			t.Wishes = append(t.Wishes, said)
		case !w.Say.Wish() && t.Leaves && w.To == announced:
			t.Answers = append(t.Answers, said)
		}
	}
	if t.Leaves || len(t.Wishes) > 0 {
		c.Talk = &t
	}
}

// ends says whom the holder has told that it leaves, and who has answered.
func (c conversation) ends() string {
	t := c.Talk
	if t == nil || !t.Leaves {
		return ""
	}
	follows := t.Follows
	var all []string
	for _, said := range t.Answers {
		all = append(all, fmt.Sprintf("%s (%s)", said.Pod, answers[said.Say]))
		if said.Pod == t.Asks && said.Say != api.Stays {
			follows = t.Asks
		}
	}
	said := cmp.Or(strings.Join(all, ", "), "nobody has answered yet")
	const stops = "Its application has its pod's grace to stop, so there is nothing to do."
	switch {
	case follows != "":
		return fmt.Sprintf("%s leaves, and %s follows. Answers: %s. %s", c.Holder.Pod, follows, said, stops)
	case t.Asks != "":
		return fmt.Sprintf("%s has announced its end to %s, and goes on unless that pod answers. Answers: %s. If it stays so, look at %s.", c.Holder.Pod, t.Asks, said, c.at(t.Asks))
	case len(all) > 0:
		return fmt.Sprintf("%s leaves. Answers: %s. %s", c.Holder.Pod, said, stops)
	}
	return fmt.Sprintf("%s has told all pods that it leaves. Answers: %s. It waits for seconds at most, so there is nothing to do.", c.Holder.Pod, said)
}

// plainName matches the name of a pod or Lease.
var plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)

// logs returns the command that shows a pod's log. Whoever may write a Lease can write any holder into it, and people
// paste the command into a shell.
func (c conversation) logs(pod string) string {
	if !plainName.MatchString(pod) {
		pod = "POD"
	}
	return "kubectl logs -n " + c.Namespace + " " + pod
}

// at returns the name of a pod for a person who is to look at it, with what its agent says.
func (c conversation) at(pod string) string {
	for _, p := range c.Standbys {
		if p.Pod == pod {
			return fmt.Sprintf("%s (%s: %s)", pod, p.Reason, p.Message)
		}
	}
	return pod + " (which is gone, or does not claim the slot)"
}

// waits says why a rollout waits.
func (c conversation) waits() string {
	waiting, wish := c.waiting(), c.wished(api.WantsNewer, api.WantsBack)
	r, h := c.rollout, c.Holder
	if !c.turns || waiting == nil && wish == nil && r.Yielder == "" || c.Talk != nil && c.Talk.Leaves {
		return ""
	}
	switch next := c.nextTurn(waiting); {
	case c.Paused != "":
		return fmt.Sprintf("The rollout waits: %s is paused by hand, so %s does not yield. To end that: kubectl metaparticle resume -n %s %s", c.Slot.Slot, h.Pod, c.Namespace, c.Slot.Slot)
	case r.Yielder != "":
		c.Waits = &Wait{For: "Turn", Until: c.future(h.ServingSince, api.TurnProof+h.minReady)}
		at := ""
		if c.Waits.Until != nil {
			at = ", at " + clock(c.Waits.Until)
		}
		return fmt.Sprintf("The rollout waits: %s has had its turn since %s. Its revision is proven once the application has served for %v and the workload's minReadySeconds%s; "+
			"if it fails, %s gets the slot back. If it does not serve, read its log: %s", h.Pod, clock(h.Since), api.TurnProof, at, api.PodOf(r.Yielder), c.logs(h.Pod))
	case next >= 0 && wish == nil:
		t := r.Turns[next]
		c.Waits = &Wait{For: "NextTurn", Until: c.future(&t.Next, 0)}
		return fmt.Sprintf("The rollout waits: turn %d of revision %d comes at %s, because turn %d failed. A newer version, or kubectl rollout undo, need not wait. "+
			"Read the log of that turn, with --previous if the container has restarted since: %s",
			t.Count+1, t.Revision.Number, clock(&t.Next), t.Count, c.logs(waiting.Pod))
	case wish == nil && waiting.trouble: // it will not wish before somebody helps
	case wish != nil && wish.Say == api.WantsBack:
		return fmt.Sprintf("%s has wished to have the slot back since %s. %s gives it back only if its application does not begin to serve in time: look at %s.", wish.Pod, clock(wish.Since), h.Pod, h.Pod)
	case r.Yields == api.YieldsLater && h.ServingSince != nil:
		c.Waits = &Wait{For: "Service", Until: c.future(h.ServingSince, api.TurnRest)}
		return fmt.Sprintf("The rollout waits: %s has served since %s; the slot has moved for a wish before, so it yields after a minute of service, at %s. There is nothing to do.", h.Pod, clock(h.ServingSince), clock(new(h.ServingSince.Add(api.TurnRest))))
	case wish != nil:
		return fmt.Sprintf("%s has wished for its turn since %s. %s announces its end to that pod, and goes on without an answer; the next announcement then comes within 5 min. If it stays so, look at %s.",
			wish.Pod, clock(wish.Since), h.Pod, c.at(wish.Pod))
	}
	return "The rollout waits for " + c.at(waiting.Pod) + "." + c.lock(waiting.Message)
}

// waiting returns a pod of the newest revision that waits for a turn; nil if none does. A pod that has had one
// comes first, because its log tells more.
func (c conversation) waiting() (first *Standby) {
	had := func(p *Standby) bool { return c.Moved != nil && c.Moved.From == p.Pod }
	for _, p := range c.Standbys {
		if p.Deleted || p.Reason != api.ReasonWaitsForItsTurn && p.Reason != reasonAsks {
			continue
		}
		if first == nil || p.revision.NewerThan(first.revision) || !first.revision.NewerThan(p.revision) && had(p) {
			first = p
		}
	}
	return first
}

// lock says how to look at the start lock that the message of a waiting pod begins with; empty for any other message.
func (c conversation) lock(message string) string {
	lock, _, _ := strings.Cut(message, " ")
	if !api.IsSlot(lock) || KindOf(lock) != startLock || !plainName.MatchString(lock) {
		return ""
	}
	return fmt.Sprintf(" Look at that lock: kubectl metaparticle status -v -n %s %s", c.Namespace, lock)
}

// wished returns the first of these wishes; nil without one.
func (c conversation) wished(says ...api.Say) *Said {
	if c.Talk != nil {
		for i, w := range c.Talk.Wishes {
			if slices.Contains(says, w.Say) {
				return &c.Talk.Wishes[i]
			}
		}
	}
	return nil
}

// nextTurn returns the place of the pod's revision among the turns if its next turn has a time; negative otherwise.
// Earlier revisions may have such times, too.
func (c conversation) nextTurn(waiting *Standby) int {
	for i, t := range c.rollout.Turns {
		if waiting != nil && t.Revision == waiting.revision && !t.Next.IsZero() {
			return i
		}
	}
	return -1
}

// hangs says when a holder whose application fails its readiness probe hands over.
func (c conversation) hangs() string {
	h, r := c.Holder, c.rollout
	switch {
	case h.yieldAfter == 0 || h.failing == nil || h.ServingSince != nil || h.Since == nil || r.Yielder != "" || c.Talk != nil && c.Talk.Leaves:
		return ""
	case c.Paused != "":
		return fmt.Sprintf("%s has failed its readiness probe since %s, and keeps the slot, because %s is paused by hand. To end that: kubectl metaparticle resume -n %s %s", h.Pod, clock(h.failing), c.Slot.Slot, c.Namespace, c.Slot.Slot)
	case c.alone:
		return fmt.Sprintf("%s has failed its readiness probe since %s, and keeps the slot, because no other pod claims it: read its log, or add a replica.", h.Pod, clock(h.failing))
	}
	if h.unserved {
		return c.unserved()
	}
	at, wait := h.failing.Add(h.yieldAfter), api.HangWait(r.Hangs)
	if least := h.Since.Add(wait); least.After(at) {
		at = least
	}
	last, from := "", "from "+clock(&at)+" on"
	if r.Hangs > 0 {
		last = fmt.Sprintf(" After %d such hand-overs a hold lasts for %v at least.", r.Hangs, wait)
	}
	if c.future(&at, 0) == nil && !c.now.IsZero() {
		from = "now"
	}
	return fmt.Sprintf("%s has failed its readiness probe since %s. If its application has served in this hold, it hands over %s, to a standby that answers.%s Read its log: %s",
		h.Pod, clock(h.failing), from, last, c.logs(h.Pod))
}

// unserved says what becomes of a holder whose application has not served in this hold.
func (c conversation) unserved() string {
	h := c.Holder
	if c.rollout.Moved.Wish == api.WantsPreferred || c.rollout.Hung == h.Identity {
		return fmt.Sprintf("%s got the slot because it is preferred, and its application has not served since. If it does not in a minute, or in what its probes allow, %s hands over to a standby that answers. "+
			"Read its log: %s", h.Pod, h.Pod, c.logs(h.Pod))
	}
	return fmt.Sprintf("%s keeps the slot, because its application has not served in this hold, and may still start: read its log (%s). To move the slot by hand: kubectl metaparticle yield -n %s %s",
		h.Pod, c.logs(h.Pod), c.Namespace, c.Slot.Slot)
}

// future returns the instant after the time since "at"; nil if it has passed by the caller's clock.
func (c conversation) future(at *time.Time, after time.Duration) *time.Time {
	if at == nil || c.now.IsZero() || !at.Add(after).After(c.now) {
		return nil
	}
	return instant(at.Add(after))
}

// prefers says when a preferred standby gets the slot.
func (c conversation) prefers() string {
	i := slices.IndexFunc(c.Standbys, func(p *Standby) bool { return p.preferred && !p.Deleted && p.Ready })
	h := c.Holder
	if i < 0 || h.preferred || !c.turns || c.Paused != "" || c.Talk != nil && (c.Talk.Leaves || c.wished(api.WantsNewer, api.WantsBack) != nil) {
		return ""
	}
	p := c.Standbys[i]
	if c.rollout.Hung == p.Identity {
		at, why := "", "hung or ended by itself"
		if until := c.future(h.ServingSince, api.TurnProof+api.TurnForget); until != nil {
			at = ", at " + clock(until) + " at the earliest"
		}
		if c.Moved != nil && c.Moved.From == p.Pod {
			why = "failed (" + cmp.Or(c.Moved.Cause, c.Moved.Reason) + ")"
		}
		return fmt.Sprintf("%s is preferred, but its application %s, so it does not wish for the slot until an application has served for %v%s, and each such failure doubles the 5 min for which it must be Ready. Read its log: %s --previous",
			p.Pod, why, api.TurnForget, at, c.logs(p.Pod))
	}
	revision, _ := api.ParseRevision(h.revision)
	for _, t := range c.rollout.Turns {
		if t.Revision.NewerThan(revision) {
			return fmt.Sprintf("%s is preferred, but a rollout has begun, and no preference moves the slot before it is over: revision %d has had a turn.", p.Pod, t.Revision.Number)
		}
	}
	if wish := c.wished(api.WantsPreferred); wish != nil && wish.Pod == p.Pod {
		return fmt.Sprintf("%s is preferred, and has wished for the slot since %s. %s announces its end to that pod, and goes on without an answer; the next announcement then comes within 5 min. If it stays so, look at %s.",
			p.Pod, clock(wish.Since), h.Pod, c.at(p.Pod))
	}
	served, ready := "", ""
	if at := c.future(h.ServingSince, api.PreferSettled); at != nil {
		served = ", at " + clock(at)
	}
	if at := c.future(p.readySince, api.PreferSettled); at != nil {
		ready = ", at " + clock(at)
	}
	if c.rested(h.ServingSince) && c.rested(p.readySince) {
		return fmt.Sprintf("%s is preferred, and does not wish for the slot yet: each failure of its application doubles the 5 min for which it must be Ready. If it stays so, look at %s.", p.Pod, c.at(p.Pod))
	}
	return fmt.Sprintf("%s is preferred: it gets the slot once %s has served for 5 min%s, and it has been Ready for 5 min%s. There is nothing to do.", p.Pod, h.Pod, served, ready)
}

// rested reports that the time of [api.PreferSettled] has passed since the instant.
func (c conversation) rested(since *time.Time) bool {
	return since != nil && !c.now.IsZero() && c.future(since, api.PreferSettled) == nil
}

// clock returns an instant for people.
func clock(at *time.Time) string {
	if at == nil {
		return "an unknown time"
	}
	return at.UTC().Format(time.RFC3339)
}
