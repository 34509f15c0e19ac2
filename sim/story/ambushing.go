// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// ambush causes faults just when the API server stores an agent's write of a Lease, beside the faults
// of a story. So an agent dies between its acquisition and the grant, or between the drain and the
// release. At random times such faults are rare. The random source of the ambush is separate, so the
// draws of the story stay the same.
type ambush struct {
	*world.World
	rng *rand.Rand
}

func newAmbush(w *world.World) *ambush { return &ambush{w, w.Source("ambush")} }

// ambushed is the time after a stored write in which an ambush strikes. In most cases the writer then
// has yet to get the answer, or has just got the answer and sends the grant.
const ambushed = 10 * time.Millisecond

// lurk lets the ambush strike at some of the writes that hand a slot over, and at few renewals.
func (a *ambush) lurk() {
	a.Stored = func(by string, handover bool) {
		chance := .05
		if handover {
			chance = .5
		}
		if a.Calm || !engine.Chance(a.rng, chance) {
			return
		}
		after := engine.Between(a.rng, 1, ambushed)
		for _, p := range a.Pods {
			if p.Identity() == by {
				a.After(after, func() { a.strike(p) })
				return
			}
		}
	}
}

// strike causes a fault in the pod, in its node, or in the API server.
func (a *ambush) strike(p *world.Pod) {
	n, longest := p.Node, 3*rhythm(a.World)
	last := engine.Between(a.rng, 100*time.Millisecond, longest)
	kind := a.rng.IntN(12)
	if a.Calm || !world.Sound(n) {
		return
	}
	a.Note("ambush", "strikes %s (%d)", p.Name, kind)
	switch kind {
	case 0:
		n.Pause()
		a.After(last, n.Unpause)
	case 1:
		n.Freeze()
		a.After(last, n.Thaw)
	case 2:
		n.Crash()
		a.After(last, func() {
			if !n.Up {
				n.Reboot()
			}
		})
	case 3:
		n.Cut(a.rng.IntN(2) == 0, true)
		a.After(last, func() { n.CutOut, n.CutIn = false, false })
	case 4:
		n.Step(n.AnyStep())
	case 5:
		if !a.API.Away {
			a.API.GoDown()
			a.After(last, a.API.ComeUp)
		}
	default:
		disturbProcess(a.World, p, a.rng, longest)
	}
}
