// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// forbiddenPause is the pause after the API server has forbidden a watch of a next Lease. Roles from earlier
	// versions of enroll give no right to next Leases.
	forbiddenPause = time.Minute
	longestWatch   = 5 * time.Minute
	// watchAfter is the time from the beginning of a hold until the holder watches the next Lease. Earlier, the
	// work of the API server for that watch would delay the start of the application.
	watchAfter = 40 * time.Millisecond
)

// heard is what the holder has heard from the other pods of its slot, in the next Lease.
type heard struct {
	// sees reports that the agent has seen the next Lease during this hold.
	sees  bool
	words api.Words
	// alone reports that no other pod claims the slot, as far as enroll knows.
	alone bool
}

// aloneIn reports whether no other pod claims the slot of this hold, and none has said anything about it.
func (h *heard) aloneIn(hold string) bool {
	return h.alone && !slices.ContainsFunc(h.words, func(w api.Word) bool { return !w.Void(hold) })
}

// about returns the wishes for the slot of a hold, or the answers to an announcement.
func (h *heard) about(to string, wish bool) (words api.Words) {
	for _, w := range h.words {
		if w.To == to && w.Say.Wish() == wish {
			words = append(words, w)
		}
	}
	return words
}

// watchWords watches the next Lease of the hold's slot. The watch ends a moment after the call of end, so
// that the end of the watch does not delay the release of the slot.
func (s *state) watchWords(ctx context.Context, h *hold) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	next, begun := api.NextLease(h.slots[0]), false
	s.group.Go(func() {
		sleep(ctx, watchAfter)
		_ = kube.Follow(ctx, kube.Following{ // the error is that of ctx
			// The first watch begins without a read, and no watch names a version: a next Lease is seldom written,
			// so the server may have forgotten the version, and the watch would end at once. The later reads are for
			// an API server that refuses all watches, and a proxy that ends all watches without an event.
			Read: func(ctx context.Context) (string, error) {
				if !begun {
					begun = true
					return "", nil
				}
				return "", s.readWords(ctx, next)
			},
			Watch: func(ctx context.Context, version string) error {
				return s.config.API.WatchLease(ctx, next, version, func(e kube.WatchEvent) {
					if e.Lease != nil && e.Type != kube.Deleted {
						s.hear(ctx, e.Lease)
					}
				})
			},
			Longest: longestWatch, Forbidden: forbiddenPause,
			Failed: func(err error) { s.config.Log.Debug("next lease is out of sight", "lease", next, "err", err) },
		})
	})
	return func() { time.AfterFunc(elector.WatchEndsAfter, cancel) }
}

// hear stores what the next Lease says, also in an old state: each word names what it is about. A word in the
// holder's own name does not count, because the holder could otherwise yield to itself.
func (s *state) hear(ctx context.Context, l *kube.Lease) {
	own := func(w api.Word) bool { return w.Identity == s.self.Identity }
	words := slices.DeleteFunc(api.ParseWords(l.Annotations[api.WordsAnnotation]), own)
	alone := l.Annotations[api.AloneAnnotation] == api.AloneTrue
	s.posts.post(ctx, func(time.Duration) { s.rollout.heard = heard{true, words, alone} })
}

// readWords reads the next Lease once. Nobody has said anything in a Lease that is gone.
func (s *state) readWords(ctx context.Context, next string) error {
	bounded, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
	defer cancel()
	l, err := s.config.API.GetLease(bounded, next)
	switch {
	case err == nil:
		s.hear(ctx, l)
	case errors.Is(err, kube.ErrNotFound):
		return nil
	}
	return err
}

// sleep returns after the pause, or earlier at the end of ctx.
func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

const (
	// mostTries bounds the attempts to write one answer, because the holder does not wait for long.
	mostTries = 5
	// wordPause is the least average time between two wishes of a pod, and between its answers to two
	// announcements, and wordBurst the number of each in direct succession. Without these bounds, a thief of the
	// holder's rights could cause many writes by changing the Lease many times a second. After a failure, no
	// further attempt comes later than wordPause.
	wordPause = 10 * time.Second
	wordBurst = 3
	// After wordPause a pod also looks whether the next Lease still has its wish. The later times are twice as
	// long each, up to longestWishPause.
	longestWishPause = 10 * time.Minute
)

// speaker writes what the pod says to the holder of its slot into the slot's next Lease.
type speaker struct {
	state *state
	// word is what the pod says now; zero for nothing. The method endNow ends the attempts to write it.
	word   api.Word
	endNow context.CancelFunc
	// err is the error of the last write of the word; nil after a success.
	err error
	// An answer has a pace of its own, because the holder does not wait for long.
	wishes, answers pace.Pace
}

func newSpeaker(s *state) *speaker {
	p := pace.Pace{Every: wordPause, Burst: wordBurst}
	return &speaker{state: s, endNow: func() {}, wishes: p, answers: p}
}

// silent ends the attempts to write a word. The next Lease keeps a word that it already has: the holder
// ends no hold without an answer, so an old wish costs no stop.
func (s *speaker) silent() {
	s.endNow()
	s.word, s.err = api.Word{}, nil
}

// say says one thing about the hold or announcement "to", or nothing if the argument "say" is empty. The
// word is written after a random time below the argument "spread". The argument "insists" is that of
// [api.Words.With]. The result is the instant of the next decision.
func (s *speaker) say(ctx context.Context, say api.Say, to string, spread time.Duration, insists bool) (wake time.Duration) {
	if say == s.word.Say && to == s.word.To {
		return pace.Never
	}
	p, another := &s.answers, to != s.word.To
	if lasting(say) {
		p, another = &s.wishes, true
	}
	s.silent()
	switch {
	case say == "" || to == "":
		return pace.Never
	case another && !p.TrySpend(s.state.now):
		return p.NextAt()
	}
	w := api.Word{Identity: s.state.self.Identity, Say: say, To: to}
	switch {
	case say == api.Supports:
		w = s.state.supporting.offer(to)
	case say.Wish():
		w.Revision, w.At = s.state.config.Revision, s.state.config.Wall().UnixMilli()
	}
	pause := time.Duration(s.state.random.Int64N(int64(max(1, spread))))
	look := wordPause + time.Duration(s.state.random.Int64N(int64(wordPause))) // many standbys that look at once would only conflict
	s.word = w
	ctx, s.endNow = context.WithCancel(ctx)
	s.state.group.Go(func() { s.write(ctx, w, insists, pause, look) })
	return pace.Never
}

// lasting reports whether the next Lease is to keep the word. An answer matters only for a moment.
func lasting(say api.Say) bool { return say.Wish() || say == api.Supports }

// write writes the word after the pause, until the next Lease has it, or needs no further word. After the time
// in the argument "look", and seldom later, it looks whether the next Lease still has a wish or an offer.
func (s *speaker) write(ctx context.Context, w api.Word, insists bool, pause, look time.Duration) {
	for tries := 0; lasting(w.Say) || tries < mostTries; tries++ {
		if sleep(ctx, pause); ctx.Err() != nil {
			return
		}
		err := s.writeWord(ctx, w, insists)
		s.state.posts.post(ctx, func(time.Duration) {
			if s.word == w {
				s.err = err
			}
		})
		least, most := s.state.self.Budget.Retry, wordPause // another pod may write all the time
		switch {
		case err == nil && !lasting(w.Say):
			return
		case err == nil:
			insists, least, most = true, look, longestWishPause
		case errors.Is(err, kube.ErrForbidden):
			least = wordPause // enroll must grant the right first
		}
		if err != nil {
			s.state.config.Log.Debug("word is not written", "say", w.Say, "to", w.To, "err", err)
		}
		pause = min(max(least, 2*pause), most)
	}
}

// writeWord adds the word to the next Lease, unless that needs no further word.
func (s *speaker) writeWord(ctx context.Context, w api.Word, insists bool) error {
	return s.writeNext(ctx, func(text string) (string, bool) {
		words, more := api.ParseWords(text).With(w, insists)
		return words.String(), more
	})
}

// writeNext writes the next Lease with the words that the function "change" returns for the present ones, unless
// its second result is false. A conflict means that another pod has spoken meanwhile.
func (s *speaker) writeNext(ctx context.Context, change func(text string) (string, bool)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.state.self.Budget.RequestTimeout)
	defer cancel()
	for range mostTries {
		var base *kube.Lease
		if base, err = s.state.config.API.GetLease(ctx, api.NextLease(s.state.config.Slots[0])); err != nil {
			return err
		}
		text := base.Annotations[api.WordsAnnotation]
		next, writes := change(text)
		if !writes {
			return nil
		}
		l := base.Clone()
		if l.Annotations = maps.Clone(base.Annotations); l.Annotations == nil {
			l.Annotations = map[string]string{}
		}
		if next != text {
			l.Annotations[api.WordsAnnotation] = next
		}
		l.DurationSeconds, l.RenewTime = 1, s.state.config.Wall()
		if l.Holder != s.state.self.Identity { // an agent may write only its own identity
			l.Holder, l.AcquireTime = s.state.self.Identity, l.RenewTime
		}
		if _, err = s.state.config.API.UpdateLease(ctx, l); !errors.Is(err, kube.ErrConflict) {
			return err
		}
	}
	return err
}
