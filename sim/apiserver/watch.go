// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// change is one stored change, which the server sends to all watches of the object.
type change struct {
	rv   int64
	kind kube.WatchType
	name string
	raw  []byte
}

// event returns the change as a watch shows it.
func (c change) event() kube.WatchEvent {
	lease := agentsLease(c.raw)
	return kube.WatchEvent{Type: c.kind, Lease: lease, ResourceVersion: lease.ResourceVersion}
}

// Watch is the stream of one watch. Its events arrive in the order of the changes, some of them
// late.
type Watch struct {
	c       *sender
	rng     *rand.Rand
	strange *rand.Rand // the random source of the faults that proxies and broken servers cause
	name    string
	// scripted reports that the server is [Scripted], so no event is delayed.
	scripted bool
	queue    []change // changes that the client has yet to get
	moving   bool
	moves    int
	sounds   int // counts the arrived events, so that only an idle stream is cut
	arrived  []change
	// Mute reports that the stream is open, but carries no event any more.
	Mute bool
	// Ended reports that the stream is over. The client may still have to read arrived events.
	Ended bool
	err   error
	wake  chan struct{}
}

// offer adds a change to the queue of the stream, if the stream watches the changed Lease, and has
// neither ended nor become mute. In silent weather, each offered change makes the stream mute.
func (s *Watch) offer(c change) {
	s.Mute = s.Mute || s.c.net.Weather.Silent
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
	f := s.c.net.Weather
	if s.scripted {
		s.arrive(false, false)
		return
	}
	delay := trip(s.rng, f)
	if engine.Chance(s.rng, f.stall) {
		delay += engine.Between(s.rng, 0, max(time.Minute, s.c.net.Latest))
	}
	closing, orderly := engine.Chance(s.rng, f.close), engine.Chance(s.rng, .5)
	mute := engine.Chance(s.rng, f.mute) || f.Farewell && s.queue[0].kind == kube.Deleted
	moves := s.moves
	s.c.net.engine.After(delay, func() {
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

// arrive hands the first event of the queue to the client, unless the stream is mute. If "closing"
// is true, the stream then ends: without an error if "orderly" is true, and otherwise with
// ErrBroken.
func (s *Watch) arrive(closing, orderly bool) {
	if s.Ended {
		return
	}
	if !s.c.in() {
		// The server sends packets again until the network is back, or the client gives up.
		moves := s.moves
		s.c.net.engine.After(engine.Between(s.rng, 50*time.Millisecond, 200*time.Millisecond), func() {
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
	if engine.Chance(s.strange, s.c.net.Weather.twice) {
		s.arrived = append(s.arrived, s.queue[0])
	}
	s.queue, s.moving = s.queue[1:], false
	switch {
	case closing && orderly:
		s.finish(nil)
	case closing:
		s.finish(ErrBroken)
	case engine.Chance(s.strange, s.c.net.Weather.expired):
		s.finish(Status(410, "Expired", "too old resource version"))
	}
	s.signal()
	s.move()
}

// idles lets a load balancer cut the stream, unless an event arrives in time.
func (s *Watch) idles() {
	s.sounds++
	idle, sounds := s.c.net.Weather.Idle, s.sounds
	if idle == 0 {
		return
	}
	s.c.net.engine.After(idle, func() {
		if s.sounds == sounds && s.c.net.Weather.Idle != 0 {
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
