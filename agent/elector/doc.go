// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package elector keeps the Leases of a claim. The claim decides: it sends nothing, starts no
// goroutine, and takes the time as an argument. An [Elector] drives it: [Elector.Step] passes the facts
// to the claim, carries out its actions, each request in a goroutine of its own, and posts the answers
// to the loop that calls Step. Only elector.go and record.go do I/O (agent/deps_test.go); start reading
// in waiting.go.
//
// A standby looks at each slot (a read, and then a watch). A campaign acquires the slots one
// after the other, in the order of the configuration. All acquiring writes of a campaign contain
// the same hold number, which is random. The claim is held once the campaign has all of its
// slots. From then on the caller requests renewals, and ends the hold with [Elector.LetGo].
//
// # The need
//
// A claim needs all of its slots, or any one of them. A claim that needs several slots begins a
// campaign only when all of them are free. If the next slot cannot be acquired within a lease
// duration, the claim gives back the slots that it has acquired. A claim that needs any one slot
// begins a campaign for one slot at a time, chosen at random from the free ones. Each of these
// campaigns has a number of its own. If the answer to an acquiring write is lost, a later read
// may show the campaign's number in the Lease. Then the claim releases that slot. If an earlier
// agent process held a slot, and no proof shows that the child is dead, the claim never releases
// that slot. Instead, the claim waits until the Lease of that slot expires. So a claim that needs
// any one slot sees all slots before it acquires one. Only the first agent process of a pod
// ([Claim.First]) need not see all slots. That process looks at a few slots first. If none of
// these is free, the process looks at further slots.
//
// A claim without slots is held as soon as the pod competes, with the number [Slotless]. An
// outage of the API server does not end that hold. The pod of such a claim has only a start
// lock: another claim, whose slots the pod holds only during each start of a child.
//
// # The end of a hold
//
// The caller lets go of a hold ([Elector.LetGo]), and the claim abandons a campaign. Both drop the
// slots: the pod counts as their holder no more, but has not written anything. To give a slot back is to
// write its release, which needs the proof that no child is alive. The handback says what is left to do,
// until all slots of the last hold are released and the head start of the other pods has begun. The claim
// settles the slots that it needs no more: it gives them back, and then ends their looks.
//
// # Readers and a writer
//
// The first slot of a read-write lock is its intent. A reader needs one of the other slots. A
// writer needs all slots, also the intent. Reader and writer exclude each other because both
// need the reader's slot. The intent keeps readers from delaying a writer for ever: no reader
// begins a campaign while another pod has the intent. A writer acquires the intent, and then each
// slot as soon as its reader has gone. So two writers never wait for each other. A writer keeps its
// slots while the claim sees the Lease of the reader for which the writer waits. If the claim
// does not see that reader's Lease for a lease duration, the writer gives all slots back. If the
// pod changes between reading and writing, the claim first gives back all slots.
//
// # By hand
//
// A person may pause a slot on its Lease. No claim acquires a paused slot, even after its Lease has
// expired. A campaign that needs a paused slot gives back the slots that it has acquired. A pause
// alone ends no hold. The caller ends the hold only if [State.Paused] is "stop". A person may also
// name a hold by its number, and request that this hold yields. The releases of a hold may name a
// successor ([Parting]). The claims of all other pods give the successor a head start, which counts
// from the instant at which they see the release.
//
// # Shards
//
// The Lease of a shard has a stamp. A claim acquires only a shard whose stamp admits the pod's
// number of shards, however long the Lease has been free. If the stamp of a held shard changes,
// the caller ends the hold ([State.Closed]). For pods that end after their work, the stamp also
// names the run, and a claim acquires no shard that is done in its run.
//
// # The guarantee
//
// A claim is held only while the pod holds every slot of the campaign by the rules of package
// lease. The deadline of the claim is the earliest deadline of these slots. The claim releases
// a slot only if the caller proves that no child of its hold is alive. With the same proof the
// claim may take its own slot back before the Lease has expired. For each slot the claim sends
// at most [PerMinute] requests a minute in the long run, and [Burst] more at once. If the claim
// needs any one of its slots, the looks at all slots together have this bound, too. While the
// API server does not answer, such a claim reads one Lease at a time, and waits after each read.
// Slots that the pod may not read yet, or whose Leases do not exist yet, cost as many requests
// together as one such slot.
//
// A write replaces exactly the object that the claim read, and keeps every field that the claim does not
// know, except managedFields: the first write clears these, which are half of the bytes of each renewal
// and each event. Rejected: clearing them in enroll, which would need a second write for each Lease.
//
// # Clocks
//
// Every instant is a time of one clock, which goes on while the machine sleeps. The caller
// reads the clock after it has received an answer, and before it sends a request. The time of a
// request counts from the call of Step that sent it.
//
// # What is not guaranteed
//
// The claim knows neither shims nor children: the caller passes proofs of death in [Facts].
// While the API server is away, no claim acquires, and each hold ends at its deadline.
//
// A handover takes two writes. Rejected: the old holder writes its successor's identity, because
// the successor would know no instant before the write to count its deadline from, a thief of one
// pod's token could give the slot to any pod, and the fencing token would not be the successor's
// own write.
package elector
