// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// These texts are the end of a warning, and tell a person what to check while the condition is not
// met.
const (
	noLease  = "The Lease does not exist. Check its name, and that a pod claims it."
	noHolder = "No pod holds the Lease. Check that a pod claims it."
)

// judge decides from the states of one Lease whether the condition is met. A condition on shards
// needs the Leases of all shards, one after the other.
type judge struct {
	condition api.Condition
	first     firstSeen
	shards    shards
}

// firstSeen is the first state that the wait saw of one hold. The zero value means no hold.
type firstSeen struct {
	uid, holder, hold string
	acquired          time.Time
	version           string
	renewed           time.Time
}

// see judges the next state of the Lease; l is nil if the Lease does not exist. If the
// condition is met, the result is empty; if not, the result is a text for people.
func (j *judge) see(l *kube.Lease) string {
	switch {
	case j.condition.Sharded():
		return j.shards.see(j.condition, l)
	case l == nil:
		j.first = firstSeen{}
		return noLease
	case j.condition.Opened > 0:
		return notOpen(l, j.condition.Opened)
	case j.condition.Key != "":
		return notDone(l, j.condition.Key)
	}
	lives := j.lives(l)
	if missing := notServing(l); missing != "" {
		return missing
	}
	if !lives {
		return fmt.Sprintf("The holder %s has not renewed the Lease since the wait began. A holder renews in each sixth of its lease duration. Check that its pod lives.", holder(l))
	}
	return ""
}

// needsHolder reports whether the condition needs a holder that lives.
func (j *judge) needsHolder() bool {
	return !j.condition.Sharded() && j.condition.Opened == 0 && j.condition.Key == ""
}

// lives reports whether the state shows a renewal since an earlier state of the same hold. If the
// state shows another hold, lives stores the state for the comparison with later states. The same
// applies to a state with an earlier renew time. A restore of etcd brings such a state back, although
// the holder may be dead. A holder whose wall clock was set back writes such a state, too, but soon
// renews again.
func (j *judge) lives(l *kube.Lease) bool {
	next := firstSeen{
		uid: l.UID, holder: l.Holder, hold: l.Annotations[api.HoldAnnotation], acquired: l.AcquireTime,
		version: l.ResourceVersion, renewed: l.RenewTime,
	}
	first := j.first
	if first.uid != next.uid || first.holder != next.holder || first.hold != next.hold || !first.acquired.Equal(next.acquired) ||
		first.renewed.IsZero() || next.renewed.Before(first.renewed) {
		j.first = next
		return false
	}
	// A person who writes the Lease of a dead holder changes the version, but not the time of
	// renewal. So only a change of both proves that the holder lives.
	return first.version != next.version && !next.renewed.IsZero() && !first.renewed.Equal(next.renewed)
}

// notDone returns why the key is not done, or an empty text if the key is done.
func notDone(l *kube.Lease, key string) string {
	switch done := api.Done(l.Annotations[api.DoneAnnotation]); {
	case done.Has(key):
		return ""
	case len(done.Keys()) >= api.MaxDone:
		return fmt.Sprintf("Key %s is not among the last %d done keys. Check whether its work was done long ago.", key, api.MaxDone)
	case !api.IsIdentity(l.Holder):
		return "Key " + key + " is not done, and no pod holds the Lease. Check that a pod claims it with this key."
	}
	return fmt.Sprintf("Key %s is not done. Check the pod %s, which holds the Lease.", key, holder(l))
}

// notOpen returns why the barrier is not open for this number of pods, or an empty text if the
// barrier is open.
func notOpen(l *kube.Lease, pods int) string {
	if api.Opened(l.Annotations[api.OpenedAnnotation]) >= pods {
		return ""
	}
	return fmt.Sprintf("Fewer than %d living pods of the Job have arrived. Check that all of them are created, and that their init containers run.", pods)
}

// notServing returns why this state of the Lease shows no serving holder. The result is empty if
// the state shows a serving holder; that holder may be dead.
func notServing(l *kube.Lease) string {
	if !api.IsIdentity(l.Holder) {
		return noHolder
	}
	if l.Annotations[api.HoldAnnotation] == "" {
		return fmt.Sprintf("The holder %s is no gated pod. Check that a pod claims the Lease.", holder(l))
	}
	if !api.ServesInHold(l.Annotations[api.ServingAnnotation], l.AcquireTime) {
		return fmt.Sprintf("The holder %s does not serve. Check the application of that pod.", holder(l))
	}
	return ""
}

// shards judges the shards of a workload one after the other, until all are done in one run. The
// field "stamp" is the stamp of shard 0. The field "next" is the number of the shard to judge next.
// Each shard with a smaller number is done in the run of that stamp. So is each shard with a smaller number
// than "gone", which is the number of the shard whose Lease was missing; zero for none.
type shards struct {
	next, gone int
	stamp      api.Stamp
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
		// and only shard 0 tells. As long as shard 0 tells of the same run, the shards between are not read again.
		s.next, s.gone = 0, s.next
		return fmt.Sprintf("The Lease %s does not exist. Check its name, and that a Job with shards claims it.", name)
	}
	stamp := api.ParseStamp(l.Annotations[api.StampAnnotation])
	stamp.Closed = false // a shard that is done counts even if its stamp is closed
	if s.next == 0 && stamp != s.stamp {
		s.stamp, s.gone = stamp, 0
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
	if s.next = max(s.next+1, s.gone); s.next < stamp.Count {
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
