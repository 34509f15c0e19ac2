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

// forbiddenPause is the time that the holder waits after the API server has forbidden a watch of a
// next Lease. Roles from earlier versions of enroll give no right to next Leases.
const forbiddenPause = time.Minute

// longestWatch is the longest time of one watch of a next Lease.
const longestWatch = 5 * time.Minute

// watchAfter is the time from the beginning of a hold until the holder watches the next Lease.
// Earlier, the work of the API server for that watch would delay the start of the application.
const watchAfter = 40 * time.Millisecond

// heard is what the holder has heard from the other pods of its slot, in the next Lease. The field
// "sees" reports that the agent has seen the next Lease during this hold.
type heard struct {
	sees  bool
	words api.Words
	// alone reports that no other pod claims the slot, as far as enroll knows.
	alone bool
}

// aloneIn reports whether no other pod claims the slot of this hold, and none has said anything about it.
func (h *heard) aloneIn(hold string) bool {
	return h.alone && !slices.ContainsFunc(h.words, func(w api.Word) bool { return !w.Void(hold) })
}

// hear stores what the next Lease says. A word in the holder's own name does not count, because the
// holder could otherwise yield to itself. Each word names the hold or the announcement that it is about,
// so an old state of the next Lease does no harm.
func (h *heard) hear(l *kube.Lease, own string) {
	h.sees = true
	h.words = slices.DeleteFunc(api.ParseWords(l.Annotations[api.WordsAnnotation]), func(w api.Word) bool { return w.Identity == own })
	h.alone = l.Annotations[api.AloneAnnotation] == api.AloneTrue
}

// answers returns the answers to the announcement with this id.
func (h *heard) answers(id string) api.Words { return h.about(id, false) }

// wishes returns the wishes for the slot of this hold.
func (h *heard) wishes(hold string) api.Words { return h.about(hold, true) }

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
			// The first watch begins without a read, and no watch names a version: a next Lease is seldom
			// written, so the server may have forgotten the version, and the watch would end at once. The later
			// reads are for an API server that refuses all watches, and a proxy that ends all watches without an
			// error and without an event.
			Read: func(ctx context.Context) (string, error) {
				if !begun {
					begun = true
					return "", nil
				}
				err := s.readWords(ctx, next)
				if errors.Is(err, kube.ErrNotFound) {
					err = nil
				}
				return "", err
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

func (s *state) hear(ctx context.Context, l *kube.Lease) {
	s.posts.post(ctx, func(time.Duration) { s.rollout.heard.hear(l, s.self.Identity) })
}

// readWords reads the next Lease once.
func (s *state) readWords(ctx context.Context, next string) error {
	bounded, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
	defer cancel()
	l, err := s.config.API.GetLease(bounded, next)
	if err == nil {
		s.hear(ctx, l)
	}
	return err
}

// lookForAnswer reads the next Lease once if nobody who can take the slot has answered in half of the time
// for that, because the watch may be silent. The result is the instant of the next decision.
func (h *hold) lookForAnswer(ctx context.Context) (wake time.Duration) {
	l := &h.leaving
	if _, soon := api.Asked(l.Says); !soon || l.Answered {
		return pace.Never
	}
	if h.now >= l.lookAt {
		l.lookAt = pace.Never
		h.group.Go(func() { _ = h.readWords(ctx, api.NextLease(h.slots[0])) })
	}
	return l.lookAt
}

// sleep returns after the time in the argument "pause", or earlier at the end of ctx.
func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

const (
	// mostTries bounds the attempts to write one answer.
	mostTries = 5
	// answerPause is the least average time between the answers of a pod to two announcements, and
	// answerBurst is the number of such answers in direct succession. Without these bounds, a thief of
	// the holder's rights could cause many writes by announcing a new end many times a second.
	answerPause = 10 * time.Second
	answerBurst = 3
	// wishPause is the least time between two wishes of a pod, and the first time after which a pod looks
	// whether the next Lease still has its wish. The later times are twice as long each, up to longestWishPause.
	wishPause        = 10 * time.Second
	longestWishPause = 10 * time.Minute
)

// speaker writes what the pod says to the holder of its slot into the slot's next Lease.
type speaker struct {
	*state
	// word is what the pod says now; zero for nothing. The field "said" reports that the next Lease has
	// that word, or needs no further word. The method endNow ends the attempts to write the word; nil without any.
	word   api.Word
	said   bool
	endNow context.CancelFunc
	// Before the instant wishAt the pod writes no further wish. At the instant lookAt it looks whether
	// the next Lease still has its wish; looks counts these looks.
	wishAt, lookAt time.Duration
	looks          int
	// err is the error of the last write; nil after a success.
	err  error
	pace pace.Pace
}

func newSpeaker(s *state) *speaker {
	return &speaker{state: s, pace: pace.Pace{Every: answerPause, Burst: answerBurst}}
}

// answer returns what the pod has said about the announcement with this id; empty for nothing.
func (s *speaker) answer(id string) api.Say {
	if id == "" || s.word.To != id {
		return ""
	}
	return s.word.Say
}

// silent ends the attempts to write a word. The next Lease keeps a word that it already has: the holder
// ends no hold without an answer, so an old wish costs no stop.
func (s *speaker) silent() {
	if s.endNow != nil {
		s.endNow()
	}
	s.word, s.said, s.endNow, s.err = api.Word{}, false, nil, nil
}

// say says one thing about the hold or announcement "to", or nothing if the argument "say" is empty. The
// word is written after a random time below the argument "spread". The argument "insists" is that of [api.Words.With]. The result is the instant of the next decision.
func (s *speaker) say(ctx context.Context, say api.Say, to string, spread time.Duration, insists bool) (wake time.Duration) {
	again := s.word.Say == say && s.word.To == to
	switch {
	case say == "" || to == "":
		s.silent()
		return pace.Never
	case again && !say.Wish(), again && !s.said:
		return pace.Never
	case again && s.now < s.lookAt:
		return s.lookAt
	case again:
		s.looks++
		s.endNow()
		spread = wishPause // many standbys that look at once would only conflict
	case say.Wish() && s.now < s.wishAt:
		s.silent()
		return s.wishAt
	case say.Wish():
		s.silent()
		s.looks = 0
		s.word = api.Word{Identity: s.self.Identity, Say: say, To: to, Revision: s.config.Revision, At: s.config.Wall().UnixMilli()}
	case s.word.To != to && !s.pace.TrySpend(s.now):
		s.silent()
		return pace.Never
	default:
		s.silent()
		s.word = api.Word{Identity: s.self.Identity, Say: say, To: to}
	}
	if say.Wish() {
		s.wishAt, s.lookAt = s.now+wishPause, s.now+min(wishPause<<min(s.looks, 10), longestWishPause)
		wake = s.lookAt
	} else {
		wake = pace.Never
	}
	pause := time.Duration(0)
	if spread > 0 {
		pause = time.Duration(s.random.Int64N(int64(spread)))
	}
	s.said = false
	ctx, s.endNow = context.WithCancel(ctx)
	w, insists := s.word, insists || s.looks > 0
	s.group.Go(func() { s.write(ctx, w, insists, pause) })
	return wake
}

// write writes the word after the pause, until the next Lease has it, or needs no further word. An answer is
// tried only a few times, because the holder does not wait for long.
func (s *speaker) write(ctx context.Context, w api.Word, insists bool, pause time.Duration) {
	for tries := 0; ctx.Err() == nil && (w.Say.Wish() || tries < mostTries); tries++ {
		sleep(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		err := s.writeWord(ctx, w, insists)
		s.posts.post(ctx, func(time.Duration) {
			if s.word == w {
				s.said, s.err = err == nil, err
			}
		})
		if err == nil {
			return
		}
		s.config.Log.Warn("word is not written", "say", w.Say, "to", w.To, "err", err)
		pause = min(s.self.Budget.Retry<<min(tries, 4), wishPause) // another pod may write all the time
		if errors.Is(err, kube.ErrForbidden) {
			pause = wishPause // enroll must grant the right first
		}
	}
}

// writeWord adds the word to the next Lease, unless the next Lease needs no further word. A conflict
// means that another pod has spoken meanwhile.
func (s *speaker) writeWord(ctx context.Context, w api.Word, insists bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
	defer cancel()
	for range mostTries {
		var base *kube.Lease
		if base, err = s.config.API.GetLease(ctx, api.NextLease(s.config.Slots[0])); err != nil {
			return err
		}
		words, more := api.ParseWords(base.Annotations[api.WordsAnnotation]).With(w, insists)
		if !more {
			return nil
		}
		l := base.Clone()
		if l.Annotations = maps.Clone(base.Annotations); l.Annotations == nil {
			l.Annotations = map[string]string{}
		}
		l.Annotations[api.WordsAnnotation] = words.String()
		l.DurationSeconds, l.RenewTime = 1, s.config.Wall()
		if l.Holder != w.Identity { // an agent may write only its own identity
			l.Holder, l.AcquireTime = w.Identity, l.RenewTime
		}
		if _, err = s.config.API.UpdateLease(ctx, l); !errors.Is(err, kube.ErrConflict) {
			return err
		}
	}
	return err
}
