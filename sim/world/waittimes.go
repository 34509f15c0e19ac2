// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Slow returns the true time that passes while the slowest clock counts the duration.
func Slow(d time.Duration) time.Duration { return time.Duration(float64(d) / (1 - Skew)) }

// BudgetOf returns the budget of a lease duration.
func BudgetOf(d time.Duration) api.Budget {
	budget, err := api.NewBudget(d)
	engine.Must(err)
	return budget
}

// Quick bounds the time from the death of the holder's last child to the start of the next child,
// in fair weather. The agent learns of the death within 10 ms, by a message or the pidfd. The
// release and the acquisition take 16 ms, a watch event 4 ms, and a grant 2 ms. The sum of 32 ms
// doubles if two standbys collide.
const Quick = 100 * time.Millisecond

// Late bounds the delay with which an agent notices that an instant of its own clock has come. The
// agent's loop computes each sleep by that clock, but the timer of the sleep runs by true time. A
// sleep lasts 10 s at most. In that time the agent's clock may gain a twelfth, which is 834 ms.
const Late = 900 * time.Millisecond

// Slowest is the longest time after which a standby reads again, if a read has found no Lease.
// Enroll, too, waits for at most that long between two attempts.
const Slowest = 10 * time.Second

// These are the times of rollouts, as docs/operate/rollouts.md promises them: how long a holder serves
// between two yields, and how long a new revision serves until it is proven. After LastResort a
// revision whose turn has failed takes a free slot. After the time Again a pod looks whether the next
// Lease still has its wish for the slot. A holder that has served for the time Settled yields to a
// preferred pod that has been Ready for that long. Once an application has served for the time Forget,
// earlier hangs no longer count.
const (
	Rest       = time.Minute
	Proof      = 10 * time.Second
	LastResort = 30 * time.Second
	Again      = 10 * time.Second
	Settled    = 5 * time.Minute
	Forget     = 10 * time.Minute
)
