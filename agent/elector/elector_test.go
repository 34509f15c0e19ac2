// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// server sends one event to each watch at a time.
type server struct {
	Leases
	apart  time.Duration
	events []kube.WatchEvent
}

func (s server) WatchLease(ctx context.Context, _, _ string, fn func(kube.WatchEvent)) error {
	stream := make(chan kube.WatchEvent, len(s.events))
	go func() {
		for _, e := range s.events {
			<-time.After(s.apart)
			stream <- e
		}
		close(stream)
	}()
	for e := range stream {
		fn(e)
	}
	<-ctx.Done()
	return ctx.Err()
}

// event returns the event of a Lease with the holder and the annotation.
func event(holder, key, value string) kube.WatchEvent {
	return kube.WatchEvent{Type: kube.Modified, ResourceVersion: "2", Lease: &kube.Lease{
		Holder: holder, Annotations: map[string]string{api.HoldAnnotation: "h1", key: value},
	}}
}

// follow returns the times at which an Elector of the pod "self" posts each event, counted from the
// beginning of the watch.
func follow(t *testing.T, prompt bool, until, apart time.Duration, events ...kube.WatchEvent) (posted []time.Duration) {
	t.Helper()
	began := time.Now()
	var group sync.WaitGroup
	e := New(Config{
		Leases: server{apart: apart, events: events}, Group: &group, Prompt: prompt, Log: slog.New(slog.DiscardHandler),
		Claim: Claim{Need: api.Need{Slots: []string{"a"}}, Self: lease.Self{Identity: "self"}},
		Post: func(ctx context.Context, _ func(time.Duration)) {
			if ctx.Err() == nil {
				posted = append(posted, time.Since(began))
			}
		},
	}, 0)
	ctx, end := context.WithTimeout(t.Context(), until)
	defer end()
	e.execute(ctx, 0, Action{Kind: Look, Slot: "a", From: "1"})
	group.Wait()
	return posted
}

func TestEventsWaitWhileAnotherPodIsNext(t *testing.T) {
	at := func(waits time.Duration) []time.Duration { return []time.Duration{time.Second, 2*time.Second + waits} }
	renewal := event("holder", api.TokenAnnotation, "7")
	bookmark := kube.WatchEvent{Type: kube.Bookmark, ResourceVersion: "3"}
	for name, c := range map[string]struct {
		first  kube.WatchEvent
		prompt bool
		want   []time.Duration
	}{
		"a release names another pod":             {event("", api.SuccessorAnnotation, "other"), false, at(EventsWait)},
		"a yield names another pod":               {event("holder", api.YieldAnnotation, "h1 other"), false, at(EventsWait)},
		"a release names this pod":                {event("", api.SuccessorAnnotation, "self"), false, at(0)},
		"a yield names this pod":                  {event("holder", api.YieldAnnotation, "h1 self"), false, at(0)},
		"a yield of an earlier hold":              {event("holder", api.YieldAnnotation, "h0 other"), false, at(0)},
		"this pod holds":                          {event("self", api.YieldAnnotation, "h1 other"), false, at(0)},
		"a release without a successor":           {event("", api.TokenAnnotation, "7"), false, at(0)},
		"a pod that forwards connections follows": {event("", api.SuccessorAnnotation, "other"), true, at(0)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				assert.Equal(t, c.want, follow(t, c.prompt, time.Minute, time.Second, c.first, renewal))
			})
		})
	}
	t.Run("a bookmark between two events", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			posted := follow(t, false, time.Minute, time.Second, event("", api.SuccessorAnnotation, "other"), bookmark, renewal)
			require.Len(t, posted, 3)
			assert.Equal(t, 3*time.Second+EventsWait, posted[2])
		})
	})
}

func TestEventsOfAnEndedLookAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		posted := follow(t, false, 2*time.Second+EventsWait/2, time.Second, event("", api.SuccessorAnnotation, "other"), event("", api.TokenAnnotation, "7"))
		assert.Len(t, posted, 1)
	})
}

func TestManyEventsWaitNoLongerThanOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const apart = EventsWait / 20
		posted := follow(t, false, time.Minute, apart, slices.Repeat([]kube.WatchEvent{event("holder", api.YieldAnnotation, "h1 other")}, 1000)...)
		require.Len(t, posted, 1000)
		for i, at := range posted {
			assert.LessOrEqual(t, at, time.Duration(i+1)*apart+EventsWait)
		}
	})
}

func TestElectorForgetsHoldsThatNoLeaseNames(t *testing.T) {
	e := New(Config{Claim: Claim{Need: api.Need{Slots: []string{"a"}}}}, 0)
	for i := range 20 {
		e.addOwn(strconv.Itoa(i), i == 19)
		require.NotNil(t, e.Own(strconv.Itoa(i)))
	}
	assert.Len(t, e.own, 1)
	assert.False(t, e.Owns())
	assert.False(t, e.Began("19"), "resumed")
}
