// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"fmt"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// Slot is one slot as a standby sees it.
type Slot struct {
	Name string
	// Record is the Lease as this pod last saw it, and is never nil. Known is false if the pod has not
	// seen the Lease, or if the Lease is gone.
	Record *lease.Record
	Known  bool
	// Mine reports that the Lease names this pod.
	Mine bool
	// ExpiresAt is the instant at which the holder's lease has certainly expired, unless the holder
	// renews.
	ExpiresAt time.Duration
}

// shardOf returns the number of the shard among the slots of a holder; empty if the holder has
// no shard.
func shardOf(slots []string) string {
	if len(slots) != 1 {
		return ""
	}
	_, shard, ok := api.ReadShard(slots[0])
	if !ok {
		return ""
	}
	return strconv.Itoa(shard)
}

// closedOf explains why the stamp of a slot does not admit a pod with this number of shards and
// this run.
func closedOf(slot string, s api.Stamp, shards int, run string) string {
	switch {
	case s == (api.Stamp{}):
		return fmt.Sprintf("%s has no stamp of the number of shards yet", slot)
	case s.Run != run && s.Run != "":
		return fmt.Sprintf("%s is for the run of the Job %s, and this pod is of another run", slot, s.Run)
	case s.Closed && run != "":
		return fmt.Sprintf("%s is closed until no pod of another run, or of another number than %d, holds a shard", slot, s.Count)
	case s.Closed:
		return fmt.Sprintf("%s is closed until no pod holds a shard of another number than %d", slot, s.Count)
	}
	return fmt.Sprintf("%s is for %d shards, and this pod is for %d", slot, s.Count, shards)
}
