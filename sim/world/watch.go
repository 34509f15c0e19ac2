// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// watch is the stream of one watch. Its events arrive in the order of the changes, some of them
// late.
type watch struct {
	c       *clientOf
	rng     *rand.Rand
	name    string
	queue   []change // changes that the client has yet to get
	moving  bool
	moves   int
	sounds  int // counts the arrived events, so that only an idle stream is cut
	arrived []change
	// mute reports that the stream is open, but carries no event any more.
	mute  bool
	ended bool
	err   error
	wake  chan struct{}
}

// WatchLease implements agent.API.
func (c *clientOf) WatchLease(ctx context.Context, name, resourceVersion string, fn func(kube.WatchEvent)) error {
	s := &watch{c: c, name: name, wake: make(chan struct{}, 1)}
	defer c.close(s)
	_, err := c.do(ctx, "watch "+name, func() ([]byte, error) {
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
		arrived, ended, err := s.arrived, s.ended, s.err
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
	lease := leaseFrom(c.raw)
	return kube.WatchEvent{Type: c.kind, Lease: lease, ResourceVersion: lease.ResourceVersion}
}

// open starts a stream of the events after the version.
func (s *server) open(w *watch, resourceVersion string) error {
	w.rng = w.c.source("stream " + w.name)
	if resourceVersion == "" {
		// Without a version the stream begins with the current state.
		if v := s.object("Lease", w.name).last(); v.body != nil {
			w.offer(change{rv: s.rv, kind: kube.Added, name: w.name, raw: v.raw})
		}
		s.watches = append(s.watches, w)
		w.idles()
		return nil
	}
	from := number(resourceVersion)
	if from < s.compacted {
		return status(410, "Expired", "too old resource version")
	}
	since, _ := slices.BinarySearchFunc(s.changes, from+1, func(c change, rv int64) int { return cmp.Compare(c.rv, rv) })
	for _, change := range s.changes[since:] {
		w.offer(change)
	}
	s.watches = append(s.watches, w)
	w.idles()
	return nil
}

func (c *clientOf) close(s *watch) {
	c.server.engine.Lock()
	defer c.server.engine.Unlock()
	s.ended = true
	c.server.watches = slices.DeleteFunc(c.server.watches, func(other *watch) bool { return other == s })
}

// watchesOf returns the watches of the client.
func (s *server) watchesOf(c *clientOf) []*watch {
	return slices.DeleteFunc(slices.Clone(s.watches), func(other *watch) bool { return other.c != c })
}

// muted reports whether the client has a watch that carries no event any more.
func (s *server) muted(c *clientOf) bool {
	return slices.ContainsFunc(s.watchesOf(c), func(w *watch) bool { return w.mute })
}

// offer adds a change to the queue of the stream, if the stream watches the changed Lease, and has
// neither ended nor become mute. In silent weather, each offered change makes the stream mute.
func (s *watch) offer(c change) {
	s.mute = s.mute || s.c.server.weather.silent
	if c.name == s.name && !s.ended && !s.mute {
		s.queue = append(s.queue, c)
		s.move()
	}
}

// move delivers the events of the queue, one after the other.
func (s *watch) move() {
	if s.moving || s.ended || len(s.queue) == 0 {
		return
	}
	s.moving = true
	f := s.c.server.weather
	delay := trip(s.rng, f)
	if engine.Chance(s.rng, f.stall) {
		delay += engine.Between(s.rng, 0, max(time.Minute, s.c.server.latest))
	}
	closing, orderly := engine.Chance(s.rng, f.close), engine.Chance(s.rng, .5)
	mute := engine.Chance(s.rng, f.mute) || f.farewell && s.queue[0].kind == kube.Deleted
	moves := s.moves
	s.c.server.engine.After(delay, func() {
		if s.moves == moves {
			s.arrive(closing, orderly)
			s.mute = s.mute || mute
		}
	})
}

// hurry delivers a delayed event with a new delay, which is short because the weather has become
// fair.
func (s *watch) hurry() {
	if s.moving {
		s.moving = false
		s.moves++
		s.move()
	}
}

// arrive hands the first event of the queue to the client, unless the stream is mute. If closing is
// true, the stream then ends: without an error if orderly is true, and otherwise with errBroken.
func (s *watch) arrive(closing, orderly bool) {
	if s.ended {
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
	if s.mute {
		return
	}
	s.idles()
	s.arrived = append(s.arrived, s.queue[0])
	s.queue, s.moving = s.queue[1:], false
	switch {
	case closing && orderly:
		s.finish(nil)
	case closing:
		s.finish(errBroken)
	}
	s.signal()
	s.move()
}

// idles lets a load balancer cut the stream, unless an event arrives in time.
func (s *watch) idles() {
	s.sounds++
	idle, sounds := s.c.server.weather.idle, s.sounds
	if idle == 0 {
		return
	}
	s.c.server.engine.After(idle, func() {
		if s.sounds == sounds && s.c.server.weather.idle != 0 {
			s.finish(errBroken)
		}
	})
}

// finish ends the stream. The client still reads the events that have arrived.
func (s *watch) finish(err error) {
	if !s.ended {
		s.ended, s.err = true, err
		s.signal()
	}
}

func (s *watch) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// breakWatches ends all watches. This function may also compact the history, so that no watch can
// resume from an earlier version.
func (s *server) breakWatches(r *rand.Rand) {
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
			stream.finish(errBroken)
		}
	}
}

// cutWatches cuts the connections of all watches.
func (s *server) cutWatches() {
	for _, stream := range slices.Clone(s.watches) {
		stream.finish(errBroken)
	}
}

// cutMute cuts the connections of the watches that carry no event any more.
func (s *server) cutMute() {
	for _, stream := range slices.Clone(s.watches) {
		if stream.mute {
			stream.finish(errBroken)
		}
	}
}

// hurry delivers delayed events soon, because the weather has become fair.
func (s *server) hurry() {
	for _, stream := range s.watches {
		stream.hurry()
	}
}

// severed lets clients notice that their streams are cut. The caller has just cut a
// path.
func (s *server) severed() {
	for _, stream := range s.watches {
		if !stream.c.in() {
			s.engine.After(engine.Between(stream.rng, 0, noticed), func() {
				if !stream.c.in() {
					stream.finish(errBroken)
				}
			})
		}
	}
}
