// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Watch is the stream of one watch. Its events arrive in the order of the changes, some of them
// late.
type Watch struct {
	c       *Client
	rng     *rand.Rand
	name    string
	queue   []change // changes that the client has yet to get
	moving  bool
	moves   int
	sounds  int // counts the arrived events, so that only an idle stream is cut
	arrived []change
	// Mute reports that the stream is open, but carries no event any more.
	Mute bool
	// Ended reports that the stream is over. The client may still have to read arrived events.
	Ended bool
	err   error
	wake  chan struct{}
}

// WatchLease implements agent.API.
func (c *Client) WatchLease(ctx context.Context, name, resourceVersion string, fn func(kube.WatchEvent)) error {
	s := &Watch{c: c, name: name, wake: make(chan struct{}, 1)}
	defer c.close(s)
	_, err := c.Do(ctx, "watch "+name, func() ([]byte, error) {
		if err := c.may("watch", name); err != nil {
			return nil, err
		}
		return nil, c.server.open(s, resourceVersion)
	})
	if err != nil {
		return err
	}
	for {
		if !c.Enter() {
			return engine.ErrDead
		}
		arrived, ended, err := s.arrived, s.Ended, s.err
		s.arrived = nil
		c.Leave()
		for _, e := range arrived {
			fn(eventOf(e))
		}
		if ended {
			return err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func eventOf(c change) kube.WatchEvent {
	lease := LeaseFrom(c.raw)
	return kube.WatchEvent{Type: c.kind, Lease: lease, ResourceVersion: lease.ResourceVersion}
}

// open starts a stream of the events after the version.
func (s *Server) open(w *Watch, resourceVersion string) error {
	w.rng = w.c.source("stream " + w.name)
	if resourceVersion == "" {
		// Without a version the stream begins with the current state.
		if v := s.Object("Lease", w.name).Last(); v.Body != nil {
			w.offer(change{rv: s.rv, kind: kube.Added, name: w.name, raw: v.Raw})
		}
		s.watches = append(s.watches, w)
		w.idles()
		return nil
	}
	from := number(resourceVersion)
	if from < s.compacted {
		return Status(410, "Expired", "too old resource version")
	}
	since, _ := slices.BinarySearchFunc(s.changes, from+1, func(c change, rv int64) int { return cmp.Compare(c.rv, rv) })
	for _, change := range s.changes[since:] {
		w.offer(change)
	}
	s.watches = append(s.watches, w)
	w.idles()
	return nil
}

func (c *Client) close(s *Watch) {
	c.server.engine.Lock()
	defer c.server.engine.Unlock()
	s.Ended = true
	c.server.watches = slices.DeleteFunc(c.server.watches, func(other *Watch) bool { return other == s })
}

// WatchesOf returns the watches of the client.
func (s *Server) WatchesOf(c *Client) []*Watch {
	return slices.DeleteFunc(slices.Clone(s.watches), func(other *Watch) bool { return other.c != c })
}

// Muted reports whether the client has a watch that carries no event any more.
func (s *Server) Muted(c *Client) bool {
	return slices.ContainsFunc(s.WatchesOf(c), func(w *Watch) bool { return w.Mute })
}

// offer adds a change to the queue of the stream, if the stream watches the changed Lease, and has
// neither ended nor become mute. In silent weather, each offered change makes the stream mute.
func (s *Watch) offer(c change) {
	s.Mute = s.Mute || s.c.server.Weather.Silent
	if c.name == s.name && !s.Ended && !s.Mute {
		s.queue = append(s.queue, c)
		s.move()
	}
}

// move delivers the events of the queue, one after the other.
func (s *Watch) move() {
	if s.moving || s.Ended || len(s.queue) == 0 {
		return
	}
	s.moving = true
	f := s.c.server.Weather
	delay := trip(s.rng, f)
	if engine.Chance(s.rng, f.stall) {
		delay += engine.Between(s.rng, 0, max(time.Minute, s.c.server.Latest))
	}
	closing, orderly := engine.Chance(s.rng, f.close), engine.Chance(s.rng, .5)
	mute := engine.Chance(s.rng, f.mute) || f.Farewell && s.queue[0].kind == kube.Deleted
	moves := s.moves
	s.c.server.engine.After(delay, func() {
		if s.moves == moves {
			s.arrive(closing, orderly)
			s.Mute = s.Mute || mute
		}
	})
}

// hurry delivers a delayed event with a new delay, which is short because the weather has become
// fair.
func (s *Watch) hurry() {
	if s.moving {
		s.moving = false
		s.moves++
		s.move()
	}
}

// arrive hands the first event of the queue to the client, unless the stream is mute. If closing is
// true, the stream then ends: without an error if orderly is true, and otherwise with ErrBroken.
func (s *Watch) arrive(closing, orderly bool) {
	if s.Ended {
		return
	}
	if !s.c.in() {
		// The server sends packets again until the path is back, or the client gives up.
		moves := s.moves
		s.c.server.engine.After(engine.Between(s.rng, 50*time.Millisecond, 200*time.Millisecond), func() {
			if s.moves == moves {
				s.arrive(closing, orderly)
			}
		})
		return
	}
	if s.Mute {
		return
	}
	s.idles()
	s.arrived = append(s.arrived, s.queue[0])
	s.queue, s.moving = s.queue[1:], false
	switch {
	case closing && orderly:
		s.finish(nil)
	case closing:
		s.finish(ErrBroken)
	}
	s.signal()
	s.move()
}

// idles lets a load balancer cut the stream, unless an event arrives in time.
func (s *Watch) idles() {
	s.sounds++
	idle, sounds := s.c.server.Weather.Idle, s.sounds
	if idle == 0 {
		return
	}
	s.c.server.engine.After(idle, func() {
		if s.sounds == sounds && s.c.server.Weather.Idle != 0 {
			s.finish(ErrBroken)
		}
	})
}

// finish ends the stream. The client still reads the events that have arrived.
func (s *Watch) finish(err error) {
	if !s.Ended {
		s.Ended, s.err = true, err
		s.signal()
	}
}

func (s *Watch) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// BreakWatches ends all watches. This function may also compact the history, so that no watch can
// resume from an earlier version.
func (s *Server) BreakWatches(r *rand.Rand) {
	orderly := engine.Chance(r, .5)
	if engine.Chance(r, .5) {
		s.engine.Note("script", "history is compacted")
		s.compacted = s.rv
	}
	s.engine.Note("script", "all watches end (orderly %v)", orderly)
	for _, stream := range slices.Clone(s.watches) {
		if orderly {
			stream.finish(nil)
		} else {
			stream.finish(ErrBroken)
		}
	}
}

// CutWatches cuts the connections of all watches.
func (s *Server) CutWatches() {
	for _, stream := range slices.Clone(s.watches) {
		stream.finish(ErrBroken)
	}
}

// CutMute cuts the connections of the watches that carry no event any more.
func (s *Server) CutMute() {
	for _, stream := range slices.Clone(s.watches) {
		if stream.Mute {
			stream.finish(ErrBroken)
		}
	}
}

// Hurry delivers delayed events soon, because the weather has become fair.
func (s *Server) Hurry() {
	for _, stream := range s.watches {
		stream.hurry()
	}
}

// Severed lets clients notice that their streams are cut. The caller has just cut a
// path.
func (s *Server) Severed() {
	for _, stream := range s.watches {
		if !stream.c.in() {
			s.engine.After(engine.Between(stream.rng, 0, noticed), func() {
				if !stream.c.in() {
					stream.finish(ErrBroken)
				}
			})
		}
	}
}
