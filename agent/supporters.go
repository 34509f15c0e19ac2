// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/promise"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/addresses"
)

// supporter is a standby that has offered to support the hold.
type supporter struct {
	api.Contact
	identity string
	// asked is the instant of the last ask, and answered that of the last answer; zero for none.
	asked, answered time.Duration
}

// newKey returns the key of this agent process; the zero value for a pod that neither has supporters nor
// supports other pods.
func newKey(c Config, b api.Budget, speaks bool) (key promise.Key, public string) {
	if b.Supported == 0 || !speaks || c.Ask == nil || !c.Contact.IsValid() {
		return promise.Key{}, ""
	}
	key = promise.NewKey(c.Random)
	return key, key.Public()
}

// askEvery is the time between two asks for promises, and testEvery the time between two asks that only test
// whether a standby answers. A standby whose last answer is older than goneAfter is no supporter any more. With
// the default lease duration these are 2 s, 20 s and a minute.
func askEvery(b api.Budget) time.Duration  { return b.Renew * 2 / 5 }
func testEvery(b api.Budget) time.Duration { return 4 * b.Renew }
func goneAfter(b api.Budget) time.Duration { return 12 * b.Renew }

// ask asks each supporter that is due to be asked. Once a renewal has no answer in time, the holder asks
// for promises, without which its deadline would come. For a hold that is to expire, it asks for none. The result is
// the instant of the next ask.
func (h *hold) ask(ctx context.Context, s elector.State) (wake time.Duration) {
	if h.state.self.Key == "" {
		return pace.Never
	}
	h.learnOffers(s)
	wake = pace.Never
	b := h.state.self.Budget
	late, needed := s.From+b.Renew+b.RequestTimeout, h.needed(s)
	for _, id := range slices.Sorted(maps.Keys(h.supporters)) {
		one, required := h.supporters[id], needed && slices.Contains(s.Required, id)
		dueAt := func() time.Duration {
			at := one.asked + testEvery(b)
			if required {
				at = min(at, max(late, one.asked+askEvery(b)))
			}
			return at
		}
		if one.asked == 0 || h.state.now >= dueAt() {
			lasts := time.Duration(0)
			if required && h.state.now >= late {
				lasts = b.Duration
			}
			h.sendAsk(ctx, id, *one, lasts)
			one.asked = h.state.now
		}
		wake = min(wake, dueAt())
	}
	return wake
}

// learnOffers adds the standbys that now offer to support the hold, and forgets those that are gone. A pod that may
// write the next Lease can change its offer as often as it likes. So the holder knows no more standbys than a next
// Lease has words, and each of them for at least as long as an ask can last.
func (h *hold) learnOffers(s elector.State) {
	offers := map[string]bool{}
	for _, w := range h.state.rollout.heard.words {
		if w.Say == api.Supports && w.To == h.id {
			offers[api.SupporterID(w.Identity, w.Contact.Key)] = true
		}
	}
	maps.DeleteFunc(h.supporters, func(id string, one *supporter) bool {
		return !offers[id] && !slices.Contains(s.Required, id) && !h.answersLately(one) && h.state.now >= one.asked+askEvery(h.state.self.Budget)
	})
	for _, w := range h.state.rollout.heard.words {
		id := api.SupporterID(w.Identity, w.Contact.Key)
		if offers[id] && h.supporters[id] == nil && len(h.supporters) < api.MostWords && h.mayAsk(w.Contact.Address) {
			h.supporters[id] = &supporter{Contact: w.Contact, identity: w.Identity}
		}
	}
}

// mayAsk reports whether the agent of another pod may listen at the address, which comes from a pod that may write
// the next Lease. All agents of a slot have the same port.
func (h *hold) mayAsk(at netip.AddrPort) bool {
	own := h.state.config.Contact
	return at.Port() == own.Port() && at.Addr().Unmap() != own.Addr().Unmap() && !addresses.IsNear(at.Addr())
}

// answersLately reports whether the standby has answered lately.
func (h *hold) answersLately(one *supporter) bool {
	return one.answered != 0 && h.state.now < one.answered+goneAfter(h.state.self.Budget)
}

// supports returns the number of standbys whose promises the hold could have in an outage of the API server: none if
// one of them does not answer any more, because the hold needs all of them.
func (h *hold) supports(s elector.State) int {
	for _, id := range s.Required {
		if one := h.supporters[id]; one == nil || !h.answersLately(one) {
			return 0
		}
	}
	return len(s.Required)
}

// listed returns the standbys that are to support the hold: those of the last list first. If two agent processes of
// one pod have answered lately, the earlier one is dead.
func (h *hold) listed() (ids []string) {
	lives := map[string]time.Duration{}
	for _, one := range h.supporters {
		lives[one.identity] = max(lives[one.identity], one.answered)
	}
	for id, one := range h.supporters {
		if h.answersLately(one) && one.answered == lives[one.identity] {
			ids = append(ids, id)
		}
	}
	last := h.record().Supporters
	slices.SortFunc(ids, func(a, b string) int {
		if last.Has(a) != last.Has(b) {
			return slices.Index(last.IDs, b) - slices.Index(last.IDs, a)
		}
		return cmp.Compare(a, b)
	})
	ids = ids[:min(len(ids), api.MostSupporters)]
	slices.Sort(ids)
	return ids
}

// sendAsk asks a standby to take nothing for the given time; zero for a mere test.
func (h *hold) sendAsk(ctx context.Context, id string, of supporter, lasts time.Duration) {
	asked := h.state.now
	a := promise.Ask{To: id, Hold: h.id, Number: int64(asked), For: lasts}
	message := h.state.key.Ask(a)
	h.state.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, askEvery(h.state.self.Budget))
		defer cancel()
		answer, err := h.state.config.Ask(bounded, of.Address, message)
		if err == nil && !a.Promised(answer, of.Key) {
			err = errNoPromise
		}
		h.state.posts.post(ctx, func(now time.Duration) {
			if err != nil {
				h.state.config.Log.Debug("a standby gives no promise", "standby", id, "for", lasts, "err", err)
				return
			}
			if one := h.supporters[id]; one != nil {
				one.answered = now
			}
			if lasts > 0 {
				h.state.claim.Promised(a.Hold, id, asked)
			}
		})
	})
}

var errNoPromise = errors.New("the answer is no promise of that standby")

// supporting is what a standby knows of the holder that it supports.
type supporting struct {
	state *state
	// The holder's process with the key "by" has sent the ask with the number, its last one.
	by     string
	number int64
	// asked is the instant of the last ask for a promise; zero for none. The field "renewed" is the renew time that
	// the Lease had then.
	asked   time.Duration
	renewed time.Time
	// competes reports that this pod could start the application if the slot were free.
	competes bool
	// writes reports that a write is under way, the last of which began at the instant "began". Since the instant
	// "since" all writes have been stored in time; zero if the last one was not. The last answer came at "wrote".
	writes              bool
	began, since, wrote time.Duration
}

var errPromisesNothing = errors.New("agent: this pod promises nothing")

// answer passes a message to the loop, and returns its answer. If the pod promises nothing, or the loop does
// not decide before the end of ctx, the result is an error.
func (s *supporting) answer(ctx context.Context, message string) (answer string, err error) {
	answers := make(chan string, 1)
	s.state.posts.post(ctx, func(now time.Duration) { answers <- s.receive(now, message) })
	select {
	case answer = <-answers:
		if answer == "" {
			return "", errPromisesNothing
		}
		return answer, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// receive learns from a message of the holder, and returns the answer; empty for no promise.
func (s *supporting) receive(now time.Duration, message string) (answer string) {
	if s.state.self.Key == "" {
		return ""
	}
	r := s.state.claim.Record(s.state.config.Slots[0])
	if s.state.self.Mine(r) {
		return ""
	}
	expected := promise.Expected{By: r.Supporters.Key, To: api.SupporterID(s.state.self.Identity, s.state.self.Key), Hold: r.Hold}
	if expected.By == s.by {
		expected.After = s.number
	}
	a, ok := expected.Ask(message)
	if !ok {
		return ""
	}
	s.by, s.number = expected.By, a.Number
	if a.For == 0 && !s.maySupport(now, s.state.claim.Views()[0]) {
		return ""
	}
	if a.For > 0 {
		if !s.helps(now) {
			s.since = 0 // this pod has written nothing
		}
		s.asked, s.renewed = now, r.RenewTime
		if s.reachesServer(now) || !s.state.claim.Promise(now, a.Hold, a.For) {
			return ""
		}
	}
	return s.state.key.Promise(a)
}

// helps reports whether a holder still needs a promise: its last ask is recent, and this pod has seen no renewal since.
func (s *supporting) helps(now time.Duration) bool {
	return s.asked != 0 && now < s.asked+s.state.self.Budget.Duration && s.state.claim.Record(s.state.config.Slots[0]).RenewTime.Equal(s.renewed)
}

// reachesServer reports whether this pod's own writes have been stored in time for a third of the lease duration.
// Then only the holder is cut off, and this pod can take the slot. Reads prove nothing: an API server whose etcd is
// full still answers them.
func (s *supporting) reachesServer(now time.Duration) bool {
	b := s.state.self.Budget
	return s.since != 0 && now < s.wrote+b.Renew && now >= s.since+2*b.Renew
}

// tryWrites writes the next Lease again and again, while a holder asks for promises. It keeps all words, also the
// wish or answer of this pod. While the writes fail, all supporters of the cluster write as often as holders renew, so
// as not to keep the API server from recovering. The result is the instant of the next write.
func (s *supporting) tryWrites(ctx context.Context) (wake time.Duration) {
	b := s.state.self.Budget
	pause := b.Renew
	if s.since != 0 {
		pause = max(askEvery(b), time.Second) // a write takes two requests
	}
	switch next := s.began + pause; {
	case !s.helps(s.state.now) || s.writes:
		return pace.Never
	case s.state.now < next:
		return next
	}
	began := s.state.now
	s.writes, s.began = true, began
	s.state.group.Go(func() {
		err := s.state.speaker.writeNext(ctx, func(text string) (string, bool) { return text, true })
		s.state.posts.post(ctx, func(now time.Duration) {
			s.writes, s.wrote = false, now
			switch {
			case err != nil:
				s.since = 0
			case s.since == 0:
				s.since = began
			}
		})
	})
	return pace.Never
}

// offer is the word by which this pod offers to support the hold.
func (s *supporting) offer(hold string) api.Word {
	return api.Word{
		Identity: s.state.self.Identity, Say: api.Supports, To: hold,
		Contact: api.Contact{Address: s.state.config.Contact, Key: s.state.self.Key}, At: s.state.config.Wall().UnixMilli(),
	}
}

// maySupport reports whether this pod could take the slot if its holder died now. All pods that are no supporters
// wait for the whole Lease. In an outage of the API server the supporters stay as they are.
func (s *supporting) maySupport(now time.Duration, v elector.View) bool {
	return s.competes && now < v.Heard+s.state.self.Budget.Duration
}

// offers reports whether this pod offers to support the holder, which has no two supporters yet, or has an earlier
// agent process of this pod among them.
func (s *supporting) offers(v elector.View) bool {
	list := v.Record.Supporters
	id := api.SupporterID(s.state.self.Identity, s.state.self.Key)
	room := len(list.IDs) < api.MostSupporters || slices.Contains(list.Names(), s.state.self.Identity)
	return s.state.self.Key != "" && list.Key != "" && room && !list.Has(id) && s.maySupport(s.state.now, v)
}
