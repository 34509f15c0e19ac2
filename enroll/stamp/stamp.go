// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package stamp decides which stamps enroll writes on the Leases of one workload's shards.
// The package is pure: it sends nothing, and the caller passes which Leases have expired.
//
// # The guarantee
//
// Two pods that expect different numbers of shards never hold shards at the same time. An agent
// acquires a Lease only while the Lease's stamp is open, and has the number and the run that the
// agent's pod expects. The caller reads all Leases of the group in one consistent list. Each write
// that [Next] returns replaces exactly the version of the Lease in that list.
//
//   - The stamp of shard 0 is the decision of the group: a number of shards, a run, and an
//     epoch. A change of the number or of the run begins with a closed stamp of the next epoch
//     on the Lease of shard 0.
//   - Then each other Lease of the group gets the same closed stamp, even the Lease of a shard
//     beyond the new number. Each such write changes the version of its Lease. So
//     a delayed write of an agent, or of another enroll with an older list, fails.
//   - The holder of a closed Lease drains, and releases. If a closed Lease has expired, enroll
//     removes its holder, and leaves the stamp closed. The last holder cannot come back,
//     because no agent acquires a closed Lease.
//   - A Lease is opened only if each Lease of the list has the epoch of shard 0, and each
//     closed Lease has no holder. A closed Lease without a holder stays without a holder, so
//     the list may be old.
//
// Two processes may want different numbers at the same time. Suppose that one process opens a Lease
// by a delayed write. The write fails if the other process has already closed that Lease for its
// own decision. Otherwise, the other process finds the Lease open, closes it, and waits until the
// Lease has no holder. So two such processes delay each other, and break no rule.
//
// # Clocks
//
// The caller measures on its own clock how long a Lease has not changed. The caller counts the
// Lease's duration from when the caller first saw the Lease's version, as a standby does.
//
// # What is not guaranteed
//
// The package does not choose the number. If a person removes the stamp of shard 0, all holders of
// the group release once, and enroll then opens the Leases again. The same happens if a person
// deletes the Lease of shard 0 while no pod holds that Lease.
package stamp

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/api"
)

// Shard is the Lease of one shard, as a consistent list shows it.
type Shard struct {
	Number int
	Stamp  api.Stamp
	// Held reports that the Lease names a holder. Expired reports that the Lease has not
	// changed for its whole duration.
	Held, Expired bool
}

// Action is one write to the Lease of a shard. The write replaces the stamp of that Lease.
type Action struct {
	Number int
	Stamp  api.Stamp
	// Free reports that the write removes the holder, too.
	Free bool
}

// InOrder reports whether the Leases already have the stamps for the given number of shards and the
// given run. The stamp of shard 0 must have this number and this run. Exactly the shards below this
// number must have an open stamp, equal to that of shard 0.
func InOrder(shards []Shard, count int, run string) bool {
	open := 0
	decided := decision(shards)
	for _, s := range shards {
		switch {
		case s.Stamp.Closed || s.Stamp == (api.Stamp{}):
		case s.Stamp != decided || s.Number >= count:
			return false
		default:
			open++
		}
	}
	return decided.Count == count && decided.Run == run && open == count
}

// Next returns the writes that the Leases need now. After the writes of this call and of later
// calls, each pod of the given run that expects the given number of shards can hold. The argument
// "absent" reports that an agent may hold a Lease that is missing in the slice.
func Next(shards []Shard, count int, run string, absent bool) []Action {
	decided := decision(shards)
	if !slices.ContainsFunc(shards, func(s Shard) bool { return s.Number == 0 }) {
		return nil // the Lease of shard 0, which records the decision, does not exist yet
	}
	last := int64(0)
	for _, s := range shards {
		last = max(last, s.Stamp.Epoch)
	}
	if decided.Count != count || decided.Run != run || last > decided.Epoch {
		return []Action{{Number: 0, Stamp: api.Stamp{Epoch: last + 1, Count: count, Run: run, Closed: true}}}
	}
	closed := api.Stamp{Epoch: decided.Epoch, Count: count, Run: run, Closed: true}
	open := api.Stamp{Epoch: decided.Epoch, Count: count, Run: run}
	var orders, opens []Action
	waits := absent
	for _, s := range shards {
		switch {
		case s.Stamp != closed && s.Stamp != open:
			orders = append(orders, Action{Number: s.Number, Stamp: closed})
		case s.Stamp == closed && s.Held:
			waits = true
			if s.Expired {
				orders = append(orders, Action{Number: s.Number, Stamp: closed, Free: true})
			}
		case s.Stamp == closed && s.Number < count:
			opens = append(opens, Action{Number: s.Number, Stamp: open})
		}
	}
	if waits || len(orders) > 0 {
		return orders
	}
	return opens
}

// decision returns the stamp of shard 0 as an open stamp, even if that stamp is closed.
func decision(shards []Shard) api.Stamp {
	for _, s := range shards {
		if s.Number == 0 {
			return api.Stamp{Epoch: s.Stamp.Epoch, Count: s.Stamp.Count, Run: s.Stamp.Run}
		}
	}
	return api.Stamp{}
}
