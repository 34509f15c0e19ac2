// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

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
	decided := Decided(shards)
	decided.Closed = false
	return decided
}
