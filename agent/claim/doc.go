// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package claim decides what an agent does about the Leases of one claim. The package
// is pure: it sends nothing, starts no goroutine, and takes the time as an argument.
//
// The agent's loop asks [Claim.Next] what to do, and carries the actions out. The loop
// hands the answers of a look to its action: [Action.Read], [Action.Watched],
// [Action.Gone], [Action.LookEnded]. Any other answer goes to [Claim.Answered].
// [Claim.State] tells where the claim stands.
//
// A standby looks at each slot (a read, and then a watch). A campaign acquires the slots
// one after the other, in the order of the configuration, under the number of one hold.
// The claim is held once the campaign has all of its slots. Then the caller renews. The
// caller ends the hold with [Claim.LetGo].
//
// # The need
//
// A claim needs all of its slots, or any one of them. A claim of several slots begins a
// campaign only when all of them are free. If the next slot cannot be acquired within a
// lease duration, the claim gives back the slots that it took. A claim of any one slot
// begins a campaign for one slot at a time, chosen at random from the free ones. Each of
// these campaigns has a number of its own. If an acquiring write took a slot but its
// answer was lost, the claim releases the slot under that number. A hold of an earlier
// agent process may have no proof. Then the claim waits until that hold expires, and
// never releases its Lease.
//
// A claim without slots is held as soon as the pod competes, under the number [Slotless]. No
// API server ends that hold. The pod of such a claim has only a start lock, which is another
// claim.
//
// # By hand
//
// A person may pause a slot on its Lease. No claim acquires a paused slot, even after
// its Lease has expired. A campaign that needs a paused slot gives back the slots that
// it took. A pause alone ends no hold: the caller ends the hold if [State.Paused] says
// stop. A person may also ask one hold to yield, by its number. The releases of a hold
// may name a successor ([Parting]). The other claims leave that pod a head start, counted
// from the instant at which they see the release.
//
// # Shards
//
// The slots of a sharded workload have a stamp. A claim acquires only a slot whose stamp
// admits the pod's own number of shards, however long the Lease has been free. If the stamp
// of a held slot changes, the caller ends the hold ([State.Closed]). In pods that end, the
// stamp also names the run, and a claim acquires no shard that is done in its run.
//
// # The guarantee
//
// A claim is held only while every slot of its campaign is held by the rules of package
// lease. Its deadline is the earliest deadline of these slots. The claim releases a slot
// only if the caller proves that no child of its hold is alive. The same proof lets the
// claim take its own slot back before the Lease has expired. For each slot the claim
// sends at most [PerMinute] requests a minute in the long run, and [Burst] more at once.
//
// # Clocks
//
// Every instant is a time of one clock that goes on while the machine sleeps. The
// caller reads the clock after it has received an answer, and before it sends an
// action. A request counts from the instant of the call of Next that returned its
// action.
//
// # What is not guaranteed
//
// The claim knows neither shims nor children: the caller states as [Facts] what is
// proven. While the API server is away, no claim acquires, and each hold ends at its
// deadline.
package claim
