// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"fmt"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// shards judges the shards of a workload one after the other, until all are done in one run. The
// field "stamp" is the stamp of shard 0. The field "next" is the number of the shard to judge next.
// Each shard with a smaller number is done in the run of that stamp.
type shards struct {
	next  int
	stamp api.Stamp
}

// lease returns the name of the Lease that the wait reads next.
func (j *judge) lease() string {
	if j.condition.Sharded() {
		return api.ShardLease(j.condition.Lease, j.shards.next)
	}
	return j.condition.Lease
}

// see judges a state l of the Lease that [judge.lease] names; l is nil if that Lease does not
// exist. The result is empty once the last shard is done. Before that, the result is a text for
// people.
func (s *shards) see(c api.Condition, l *kube.Lease) string {
	name := api.ShardLease(c.Lease, s.next)
	if l == nil {
		// Enroll sweeps the Lease of a shard that no pod claims any more. A later run may have fewer shards,
		// and only shard 0 tells.
		*s = shards{}
		return fmt.Sprintf("The Lease %s does not exist. Check its name, and that a Job with shards claims it.", name)
	}
	stamp := api.ParseStamp(l.Annotations[api.StampAnnotation])
	stamp.Closed = false // a shard that is done counts even if its stamp is closed
	if s.next == 0 {
		s.stamp = stamp
	}
	switch {
	case stamp.Run == "":
		return fmt.Sprintf("The Lease %s has no run of a Job yet. Check the pods of that Job.", name)
	case c.Key != "" && stamp.Run != c.Key:
		return fmt.Sprintf("The Lease %s is for the run %s, and this pod waits for the Job with the UID %s. Create this pod again if that Job is gone.", name, stamp.Run, c.Key)
	case s.next > 0 && stamp != s.stamp && (stamp.Epoch > s.stamp.Epoch || stamp.Run != s.stamp.Run):
		*s = shards{} // another run has begun, or the number of shards has changed
		return "The run of the shards has changed, so all of them are read again. Wait; if this lasts, check the pods of the Job."
	case stamp != s.stamp:
		return fmt.Sprintf("The Lease %s is for an earlier run. Wait; if this lasts, check the pods of the Job.", name)
	case !api.Done(l.Annotations[api.DoneAnnotation]).Has(stamp.Run):
		return undone(l, s.next, stamp)
	}
	if s.next++; s.next < stamp.Count {
		return fmt.Sprintf("Shard %d of %d has not been read yet.", s.next, stamp.Count)
	}
	return ""
}

// undone returns a text for people about a shard that is not done. The text says what to check.
func undone(l *kube.Lease, shard int, stamp api.Stamp) string {
	if api.IsIdentity(l.Holder) {
		return fmt.Sprintf("Shard %d of %d is not done. Check the pod %s, which holds the Lease.", shard, stamp.Count, holder(l))
	}
	return fmt.Sprintf("Shard %d of %d is not done, and no pod holds it. Check the pods of the Job with the UID %s. "+
		"If that Job is complete, it makes no pod for the shard: delete it, and create it again.", shard, stamp.Count, stamp.Run)
}
