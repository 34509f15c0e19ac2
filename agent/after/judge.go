// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

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
