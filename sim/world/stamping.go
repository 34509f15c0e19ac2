// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/stamp"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// stamper is the part of the model of enroll that stamps the Leases of shards. The real package
// enroll/stamp decides about the stamps, from a list of the Leases. The writes go over the network,
// so other processes may write between the list and a write.
type stamper struct {
	*Enroller
	// seen has a sighting of each closed Lease with a holder, by the name of the Lease.
	seen map[string]sighting
	// gone has, as keys, the shards that no pod claims and that have no Lease. Each value is the
	// instant at which this process first saw that state.
	gone map[string]time.Duration
}

// sighting is a resourceVersion of a Lease, and the instant at which this process first saw this
// resourceVersion.
type sighting struct {
	version string
	since   time.Duration
}

// forget removes shards from the slots that the model remembers, as enroll's sweep does. The model
// forgets a shard after a time in which the shard had no Lease, and no pod claimed the shard. That
// time is the longest lease duration of all pods that ever claimed the shard. The argument
// "claimed" has the slots that pods claim.
func (s *stamper) forget(claimed []string) {
	for slot, duration := range s.w.remembered {
		_, exists := s.w.API.Lease(slot)
		if _, _, ok := api.ReadShard(slot); !ok || exists || slices.Contains(claimed, slot) {
			delete(s.gone, slot)
			continue
		}
		if since, known := s.gone[slot]; !known {
			s.gone[slot] = s.w.Now()
		} else if s.w.Now() >= since+duration {
			delete(s.w.remembered, slot)
		}
	}
}

// number returns the number of shards and the run that this process believes to be current. A
// confused process believes in a wrong number, or in the run and the number of another Job.
func (s *stamper) number(current api.Stamp) (int, string) {
	if s.Believes > 0 {
		return s.Believes, s.BelievesIn
	}
	if len(s.w.Mapped) > 0 {
		return s.run(current)
	}
	return s.lasting(current.Count), ""
}

// run returns the current run of the Jobs with shards, and the number of shards of this run. A pod
// counts while the pod exists, and neither stops nor is orphaned. The stamp's run stays current
// while a pod of this run counts. After that, the run of the youngest pod that counts is current.
func (s *stamper) run(current api.Stamp) (int, string) {
	count, run := current.Count, current.Run
	for _, p := range s.w.Pods {
		switch {
		case !p.Object || p.Stopping || p.Orphaned:
		case p.Key == current.Run:
			return current.Count, current.Run
		default:
			count, run = p.Shards, p.Key
		}
	}
	return count, run
}

// lasting returns the number of shards that the next stamp gives to a workload whose pods do not
// end. The argument "stamped" is the number of the present stamp. The stamp gets the number of the
// template once a pod has that number, or once no pod has the stamped number.
func (s *stamper) lasting(stamped int) int {
	has := func(count int) bool {
		return slices.ContainsFunc(s.w.Pods, func(p *Pod) bool { return p.Object && p.Shards == count })
	}
	if has(s.w.Sharded) || !has(stamped) {
		return s.w.Sharded
	}
	return stamped
}

// stamp writes the stamps until no Lease needs a write. The result is the time until a closed Lease
// expires; zero without such a Lease. If Leases still need writes after four rounds, the result is
// one second.
func (s *stamper) stamp(ctx context.Context) (time.Duration, error) {
	for range 4 {
		listed, err := s.List(ctx, "Lease", func(map[string]string) bool { return true })
		if err != nil {
			return 0, err
		}
		var all struct{ Items []json.RawMessage }
		engine.Must(json.Unmarshal(listed, &all))
		leases := map[string]json.RawMessage{}
		group := ""
		var shards []stamp.Shard
		var again time.Duration
		for _, raw := range all.Items {
			l := apiserver.LeaseFrom(raw)
			of, n, ok := api.ReadShard(l.Name)
			if !ok {
				continue
			}
			group = of
			expired, left := s.expired(l)
			if left > 0 && (again == 0 || left < again) {
				again = left
			}
			leases[l.Name] = raw
			shards = append(shards, stamp.Shard{Number: n, Stamp: StampOf(l), Held: l.Holder != "", Expired: expired})
		}
		slices.SortFunc(shards, func(a, b stamp.Shard) int { return a.Number - b.Number })
		orders := s.orders(shards)
		if len(orders) == 0 {
			return again, nil
		}
		for _, order := range orders {
			name := api.ShardLease(group, order.Number)
			if err := s.write(ctx, name, leases[name], order); err != nil {
				return 0, err
			}
		}
	}
	return time.Second, nil
}

// orders returns the writes that the Leases need. The function tells stamp.Next whether any
// Lease that enroll remembers is gone, because a deleted Lease may still have a living holder.
func (s *stamper) orders(shards []stamp.Shard) []stamp.Action {
	if !s.Enter() {
		return nil
	}
	defer s.Leave()
	var current api.Stamp
	if len(shards) > 0 && shards[0].Number == 0 {
		current = shards[0].Stamp
	}
	count, run := s.number(current)
	absent := false
	for slot := range s.w.remembered {
		_, n, ok := api.ReadShard(slot)
		absent = absent || ok && !slices.ContainsFunc(shards, func(known stamp.Shard) bool { return known.Number == n })
	}
	if count == 0 || stamp.InOrder(shards, count, run) {
		return nil
	}
	return stamp.Next(shards, count, run, absent)
}

// expired reports whether this process has seen a closed Lease unchanged for the Lease's
// duration. The second result is the time that is left of that duration. If the Lease is not
// closed, or has no holder, the results are false and 0.
func (s *stamper) expired(l *apiserver.Lease) (bool, time.Duration) {
	if !StampOf(l).Closed || l.Holder == "" {
		delete(s.seen, l.Name)
		return false, 0
	}
	s.w.Lock()
	defer s.w.Unlock()
	now := s.w.Now()
	if s.seen[l.Name].version != l.ResourceVersion {
		s.seen[l.Name] = sighting{l.ResourceVersion, now}
	}
	left := s.seen[l.Name].since + time.Duration(l.DurationSeconds)*time.Second - now
	return left <= 0, left
}

// write updates a Lease as the argument "order" demands. The update fails if the Lease has changed
// since the stamper listed the Leases.
func (s *stamper) write(ctx context.Context, name string, raw json.RawMessage, order stamp.Action) error {
	body := apiserver.Decode(raw)
	annotations, _ := apiserver.Metadata(body)["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		apiserver.Metadata(body)["annotations"] = annotations
	}
	annotations[api.StampAnnotation] = order.Stamp.String()
	if order.Free {
		body["spec"].(map[string]any)["holderIdentity"] = ""
		delete(annotations, api.HoldAnnotation)
	}
	_, err := s.Update(ctx, "Lease", name, apiserver.Encode(body))
	return err
}
