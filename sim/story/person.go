// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// person changes Leases by hand. In three of ten seeds of the story "chaos", a person writes while
// faults happen. In other stories a person writes only when the story says so.
type person struct {
	*workloads
	rng *rand.Rand
}

// newPerson returns the person of the seed; nil if the seed has none.
func newPerson(c *workloads) *person {
	p := &person{workloads: c, rng: c.Source("person")}
	if c.byHand = engine.Chance(p.rng, .3); !c.byHand {
		return nil
	}
	p.later()
	return p
}

// later plans the person's next write, and calls itself after that write.
func (p *person) later() {
	p.After(p.scale()*engine.Between(p.rng, 0, 20*time.Second), func() {
		if !p.Calm {
			p.write()
		}
		p.later()
	})
}

// write pauses a slot, ends the pause, or asks the slot's holder to yield.
func (p *person) write() {
	slot, what := engine.Pick(p.rng, p.slots), p.rng.IntN(6)
	successors := []string{"", "gone_uid"}
	for _, other := range p.Pods {
		successors = append(successors, other.Identity())
	}
	successor := engine.Pick(p.rng, successors)
	p.annotate(slot, func(annotations map[string]string) {
		switch what {
		case 0:
			annotations[api.PausedAnnotation] = string(api.PauseHold)
		case 1:
			annotations[api.PausedAnnotation] = string(api.PauseStop)
		case 2:
			delete(annotations, api.PausedAnnotation)
		default:
			annotations[api.YieldAnnotation] = api.Yield{Hold: annotations[api.HoldAnnotation], Successor: successor}.String()
		}
	})
}

// resume ends the pause of each paused slot.
func (p *person) resume() {
	for _, slot := range p.slots {
		p.annotate(slot, func(annotations map[string]string) { delete(annotations, api.PausedAnnotation) })
	}
}

// annotate changes the annotations of a slot's Lease.
func (p *person) annotate(slot string, change func(annotations map[string]string)) {
	p.edit(slot, func(l *apiserver.Lease) { change(l.Annotations) })
}

// edit changes a slot's Lease.
func (p *person) edit(slot string, change func(*apiserver.Lease)) {
	p.API.Rewrite("a person", slot, func(next *apiserver.Lease) {
		change(next)
		p.Note("a person", "writes on %s: paused %q, yield %q, %d s", slot, next.Annotations[api.PausedAnnotation],
			next.Annotations[api.YieldAnnotation], next.DurationSeconds)
	})
}
