// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// editor edits held Leases by hand, beside the faults of a story. The editor writes only what the
// policies admit from a person: times, transitions, a longer duration, and no annotations of the
// holder. The random source of the editor is separate, so the draws of the story stay the same.
type editor struct {
	*world.World
	rng *rand.Rand
	// durations has the duration of each Lease before the first edit.
	durations map[string]int
}

func newEditor(w *world.World) *editor { return &editor{w, w.Source("editor"), map[string]int{}} }

// later plans the editor's next edit, and calls itself after that edit.
func (e *editor) later() {
	e.After(engine.Between(e.rng, 0, rhythm(e.World)), func() {
		names := slices.DeleteFunc(e.API.Names("Lease"), api.IsNextLease)
		if !e.Calm && len(names) > 0 {
			e.edit(engine.Pick(e.rng, names))
		}
		e.later()
	})
}

// ofHolder has the annotations about a holder that "kubectl replace" with an old file removes.
var ofHolder = []string{api.HoldAnnotation, api.TokenAnnotation, api.BootAnnotation, api.AddressAnnotation, api.WorkloadAnnotation}

// strangeTimes has times that a person or a program with a wrong clock writes. The zero time removes
// the field.
var strangeTimes = []time.Time{{}, time.Unix(0, 0), time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC)}

// edit makes one edit of the Lease.
func (e *editor) edit(name string) {
	kind, at, one := e.rng.IntN(6), engine.Pick(e.rng, strangeTimes), engine.Pick(e.rng, ofHolder)
	most := engine.Pick(e.rng, []int{0, math.MaxInt32})
	if slices.ContainsFunc(e.Pods, func(p *world.Pod) bool { return p.OnBusy != "" }) {
		at = time.Unix(0, 0) // a forged later time looks like a renewal, so a pod would skip
	}
	e.API.Rewrite("an editor", name, func(l *apiserver.Lease) {
		switch kind {
		case 0:
			for _, key := range ofHolder {
				delete(l.Annotations, key)
			}
		case 1:
			delete(l.Annotations, one)
		case 2:
			l.RenewTime.Time = at
		case 3:
			l.AcquireTime.Time, l.RenewTime.Time = at, at
		case 4:
			l.Transitions = most
		case 5:
			if e.durations[name] == 0 {
				e.durations[name] = l.DurationSeconds
			}
			l.DurationSeconds = max(l.DurationSeconds, e.durations[name]*3/2)
		}
		e.Note("an editor", "edits %s of %s (%d)", name, l.Holder, kind)
	})
}

// forger replaces the boot ids in held Leases by ids that no machine has, beside the faults of a story.
// A person with the right to patch Leases can do so where the policy "hold" is absent. The random
// source of the forger is separate, so the draws of the story stay the same.
type forger struct {
	*world.World
	rng *rand.Rand
}

func newForger(w *world.World) *forger { return &forger{w, w.Source("forger")} }

// later plans the forger's next write, and calls itself after that write.
func (f *forger) later() {
	f.After(engine.Between(f.rng, 0, 2*rhythm(f.World)), func() {
		held := slices.DeleteFunc(f.API.Names("Lease"), func(name string) bool {
			l, ok := f.API.Lease(name)
			return !ok || l.Holder == "" || l.Annotations[api.BootAnnotation] == ""
		})
		if !f.Calm && len(held) > 0 {
			f.forge(engine.Pick(f.rng, held))
		}
		f.later()
	})
}

// forge replaces the boot id in a Lease.
func (f *forger) forge(name string) {
	f.API.Rewrite("a forger", name, func(l *apiserver.Lease) {
		l.Annotations[api.BootAnnotation] = fmt.Sprintf("forged-%d", f.rng.IntN(3))
		f.Note("a forger", "replaces the boot id of %s", name)
	})
}
