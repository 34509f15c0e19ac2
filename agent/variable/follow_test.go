// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// The function "follows" follows the Variable until ctx ends. The result "seen" is a function
// that returns the Variable's integers that the method Follow has delivered so far. The result
// "done" is a channel that delivers the result of Follow.
func follows(ctx context.Context, v *Variable, first *kube.Variable) (seen func() []int64, done <-chan Refusal) {
	var mu sync.Mutex
	var all []int64
	ended := make(chan Refusal, 1)
	go func() {
		ended <- v.Follow(ctx, first, func(now *kube.Variable) bool {
			mu.Lock()
			defer mu.Unlock()
			n := int64(-1)
			if now.Integer != nil {
				n = *now.Integer
			}
			all = append(all, n)
			return true
		})
	}()
	return func() []int64 {
		mu.Lock()
		defer mu.Unlock()
		return append([]int64(nil), all...)
	}, ended
}

func set(n int64) func(*kube.Variable) { return func(v *kube.Variable) { v.Integer = &n } }

func TestProgramsShareOneVariableWatchWithoutPolling(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		first := v.Get(t.Context()).State
		seen, done := follows(t.Context(), v, first)
		ctx, end := context.WithCancel(t.Context())
		other, otherDone := follows(ctx, v, first)
		<-time.After(time.Second)
		s.edit(set(1))
		synctest.Wait()
		s.edit(set(2))
		<-time.After(mostWatched/2 - 2*time.Second)
		synctest.Wait()
		assert.Equal(t, []int64{-1, 1, 2}, seen())
		assert.Equal(t, []int64{-1, 1, 2}, other())
		assert.Equal(t, 1, s.count("get"))
		assert.Equal(t, 1, s.count("watch"))
		end()
		assert.Empty(t, <-otherDone)
		<-time.After(3 * mostWatched)
		s.edit(set(3))
		synctest.Wait()
		assert.Equal(t, []int64{-1, 1, 2, 3}, seen())
		assert.Equal(t, []int64{-1, 1, 2}, other())
		s.remove()
		assert.Equal(t, Absent, <-done)
		<-time.After(time.Second) // within this second the last request ends
	})
}

func TestProgramSeesVariableChangesWhileWatchIsBroken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		s.Lock()
		s.mute = errors.New("410")
		s.Unlock()
		seen, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Second / 2)
		s.edit(set(1))
		<-time.After(time.Minute)
		synctest.Wait()
		assert.Equal(t, []int64{-1, 1}, seen())
		assert.LessOrEqual(t, s.count("watch"), 61, "a broken watch is not polled")
	})
}

// A follower that begins late may have read a newer state than the watch has delivered.
func TestVariableWatchNeverDeliversAnOlderState(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		s.Lock()
		s.mute = errors.New("410")
		s.Unlock()
		_, _ = follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Millisecond * 10)
		s.edit(set(5))
		seen, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Minute)
		synctest.Wait()
		assert.Equal(t, []int64{5}, seen())
	})
}

// A person deletes the Variable and creates it again, while the watch delivers no event.
func TestStreamNeverReturnsToADeletedVariable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		s.edit(set(7))
		s.Lock()
		s.mute = errors.New("410")
		s.Unlock()
		old, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Millisecond * 10)
		s.edit(func(v *kube.Variable) { v.UID, v.Integer = "another", new(int64(0)) })
		seen, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Minute)
		synctest.Wait()
		assert.Equal(t, []int64{0}, seen())
		assert.Equal(t, []int64{7, 0}, old())
	})
}

func TestWatchEndsWithTheLastFollower(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		ctx, end := context.WithCancel(t.Context())
		_, done := follows(ctx, v, v.Get(t.Context()).State)
		<-time.After(time.Second)
		end()
		<-done
		<-time.After(time.Second)
		gets, watches := s.count("get"), s.count("watch")
		<-time.After(3 * mostWatched)
		assert.Equal(t, gets, s.count("get"))
		assert.Equal(t, watches, s.count("watch"))
	})
}

// No watch works, so only a read shows the deletion.
func TestStreamEndsAfterADeletionWithoutAWatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		s.Lock()
		s.mute = errors.New("410")
		s.Unlock()
		_, done := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(10 * time.Second)
		s.remove()
		select {
		case refusal := <-done:
			assert.Equal(t, Absent, refusal)
		case <-time.After(time.Minute):
			assert.Fail(t, "the stream goes on without its Variable")
		}
	})
}
