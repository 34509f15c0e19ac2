// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// waiters adds pods with conditions to a story of jobs, and causes faults of these pods. The
// waiters draw from a separate random source, so the draws of the story do not depend on the
// waiters.
type waiters struct {
	*world.World
	random *rand.Rand
	all    []*world.Waiter
	made   int
	// draw returns the conditions of the next waiter.
	draw func(*rand.Rand) []api.Condition
}

// mostWaiters bounds the waiters at one instant. The bound is low, because each waiter watches
// every renewal.
const mostWaiters = 3

func newWaiters(w *world.World, draw func(*rand.Rand) []api.Condition) *waiters {
	ws := &waiters{World: w, random: w.Source("waiters"), draw: draw}
	ws.plan()
	return ws
}

// plan adds waiters, and causes faults of waiters, at random times. In quiet times nothing happens.
func (ws *waiters) plan() {
	ws.After(engine.Between(ws.random, time.Millisecond, 20*time.Second), func() {
		if !ws.Calm {
			ws.act()
		}
		ws.plan()
	})
}

// act adds a waiter, or causes a fault of a waiter.
func (ws *waiters) act() {
	if len(ws.all) == 0 || len(ws.all) < mostWaiters && engine.Chance(ws.random, .5) {
		ws.add()
		return
	}
	p := engine.Pick(ws.random, ws.all)
	pause := engine.Between(ws.random, 100*time.Millisecond, time.Minute)
	switch n := ws.random.IntN(6); {
	case n == 0 && p.Node.Up && !p.Node.Paused:
		p.Kill()
	case n == 1 && p.Runs() && !p.FrozenAlone:
		p.PauseAlone(pause)
	case n == 2:
		ws.takeRole()
	case n == 3:
		ws.silence(p)
	}
}

// add makes a waiter. A little later, enroll grants the waiter the right to read the Leases of its
// conditions.
func (ws *waiters) add() {
	ws.made++
	p := world.NewWaiter(ws.World, fmt.Sprintf("waiter-%d", ws.made), engine.Pick(ws.random, ws.Nodes), ws.draw(ws.random), ws.remove)
	ws.all = append(ws.all, p)
	for _, c := range p.Conditions {
		for _, lease := range c.Leases() {
			ws.Read[lease] = true
		}
	}
	for _, e := range ws.Enrolls {
		e.Nudge()
	}
}

// remove drops a waiter from the list of living waiters, and deletes its pod.
func (ws *waiters) remove(p *world.Waiter) {
	ws.all = slices.DeleteFunc(ws.all, func(other *world.Waiter) bool { return other == p })
	p.Node.Tenants = slices.DeleteFunc(p.Node.Tenants, func(other world.Tenant) bool { return other == p })
	engine.Must(ws.API.Remove("kubelet", "Pod", p.Name, "", ""))
}

// takeRole deletes the Role by which waiters read. A watch that is open goes on.
func (ws *waiters) takeRole() {
	if ws.API.Exists("Role", world.ConditionRoleName) {
		engine.Must(ws.API.Remove("somebody", "Role", world.ConditionRoleName, "", ""))
	}
}

// silence makes the open watches of a waiter deliver no event any more.
func (ws *waiters) silence(p *world.Waiter) {
	for _, s := range p.Client.Watches() {
		ws.Note(p.Name, "its watch falls silent")
		s.Mute = true
	}
}

// recover ends the faults of all waiters.
func (ws *waiters) recover() {
	for _, p := range ws.all {
		p.Resume()
	}
}

// mute reports whether the waiter has a watch that carries no event any more.
func (ws *waiters) mute(p *world.Waiter) bool {
	return p.Client.Muted()
}

// mostMapped bounds the number of shards of a Job in the story of Jobs with shards.
const mostMapped = 4

// looking returns the longest time from the last fault until a waiter without a mute watch sees its
// Leases.
func (ws *waiters) looking() time.Duration {
	return sum([]part{
		{"a node boots, and the kubelet starts the container again", 3*time.Second + world.MostAgain},
		{"a late request arrives, or a read without an answer ends", max(ws.API.Latest, 20*time.Second)},
		{"enroll begins anew, and grants the right", 5 * time.Second},
		{"the longest pause after a failure, twice", 2 * 15 * time.Second},
		{"a read, and the first event of its watch, for each shard", mostMapped * time.Second},
	})
}

// longestWatch is the constant of agent/wait: the longest time for which a pod that waits keeps a watch.
const longestWatch = 24 * time.Minute

// proceed demands that no waiter is due for longer than the bound. A waiter is due if the function
// "due" returns true: the waiter then has no more reason to wait. The method returns true once no
// waiter is due, and false after a violation.
func (ws *waiters) proceed(bound time.Duration, due func(*world.Waiter) bool) bool {
	since := map[*world.Waiter]time.Duration{}
	for {
		none := true
		ws.Do(func() {
			for _, p := range ws.all {
				if !due(p) {
					delete(since, p)
					continue
				}
				none = false
				if _, ok := since[p]; !ok {
					since[p] = ws.Now()
				}
				if ws.Now()-since[p] > bound {
					ws.Violate(world.WaitsOn, "%s has waited on for %v, until %v", p.Name, bound, p.Conditions)
				}
			}
		})
		if none || !ws.Pass(bound/200) {
			return none
		}
	}
}

// afterTrouble demands that each waiter whose keys are done goes on. A mute watch may delay a
// waiter. If the argument "patient" is true, the story waits for the end of that watch. If
// "patient" is false, waiters with mute watches do not count. In that case the bound on the delay
// of the other waiters is right only for the model of enroll. So for a story with the real enroll,
// afterTrouble then demands nothing, and returns true.
func (ws *waiters) afterTrouble(patient bool) bool {
	if ws.Real && !patient {
		return true
	}
	bound := ws.looking()
	if patient {
		bound += longestWatch
	}
	return ws.proceed(bound, func(p *world.Waiter) bool { return ws.KeysDone(p.Conditions) && (patient || !ws.mute(p)) })
}
