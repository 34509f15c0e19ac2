// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Watches has the streams of all watches, in the order of their beginning.
type Watches struct{ all []*Watch }

// add begins the stream.
func (s *Watches) add(w *Watch) {
	s.all = append(s.all, w)
	w.idles()
}

// remove ends the stream, whose client reads no more.
func (s *Watches) remove(w *Watch) {
	s.all = slices.DeleteFunc(s.all, func(other *Watch) bool { return other == w })
}

// offer adds a change to the streams that show it.
func (s *Watches) offer(c change) {
	for _, stream := range s.all {
		stream.offer(c)
	}
}

// of returns the watches of the sender.
func (s *Watches) of(c *sender) []*Watch {
	return slices.DeleteFunc(slices.Clone(s.all), func(other *Watch) bool { return other.c != c })
}

// Cut cuts the connections of all watches.
func (s *Watches) Cut() {
	for _, stream := range slices.Clone(s.all) {
		stream.finish(ErrBroken)
	}
}

// CutMute cuts the connections of the watches that deliver no event any more.
func (s *Watches) CutMute() {
	for _, stream := range slices.Clone(s.all) {
		if stream.Mute {
			stream.finish(ErrBroken)
		}
	}
}

// Hurry delivers delayed events soon, because the weather has become fair.
func (s *Watches) Hurry() {
	for _, stream := range s.all {
		stream.hurry()
	}
}

// Severed lets clients notice that their streams are cut. The caller has just cut the
// network of some clients.
func (s *Watches) Severed() {
	for _, stream := range s.all {
		if !stream.c.in() {
			stream.c.net.engine.After(engine.Between(stream.rng, 0, noticed), func() {
				if !stream.c.in() {
					stream.finish(ErrBroken)
				}
			})
		}
	}
}
