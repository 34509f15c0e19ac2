// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// surveyPause is the shortest pause between two surveys. The pause is short compared with the
	// start of a pod. Only the pod with the first Lease surveys, and reads each of the other
	// Leases less than fifty times a minute.
	surveyPause = 1250 * time.Millisecond
	// readsPerSecond bounds how many Leases the surveying pod reads in one second, on average
	// over a survey and the pause after that survey.
	readsPerSecond = 8
)

// surveysAtOnce is the number of Leases that a survey reads at the same time. The proof that a holder lives
// is as old as the previous read of its Lease. So a survey must not take long, even if each answer
// does. Eight connections more cost the pod less than a megabyte.
const surveysAtOnce = 8

// survey reads all other Leases of the barrier, and opens the barrier if all pods have arrived.
// If the pod's own Lease needs a renewal meanwhile, survey stops for the renewal, and the next
// call goes on with the remaining Leases. The result is the pause until the next call.
func (a *arrival) survey(ctx context.Context) time.Duration {
	names := a.Leases[a.surveyed+1:]
	for _, r := range a.readAll(ctx, names) {
		if !r.sent {
			return 0 // the next survey reads this Lease first
		}
		if _, err := a.learn(r); err != nil {
			return a.backOff()
		}
		a.surveyed++
	}
	a.surveyed = 0
	if a.complete(a.Clock()) {
		return a.record(ctx)
	}
	return a.spread(max(surveyPause, time.Duration(len(a.Leases))*time.Second/readsPerSecond))
}

// readAll reads the Leases, at most [surveysAtOnce] at the same time. After an error, or when the pod's own
// Lease needs a renewal, readAll sends no further reads.
func (a *arrival) readAll(ctx context.Context, names []string) []reading {
	all := make([]reading, len(names))
	var next atomic.Int64
	var failed atomic.Bool
	var group sync.WaitGroup
	for range min(surveysAtOnce, len(names)) {
		group.Go(func() {
			for ctx.Err() == nil && !failed.Load() && a.Clock()-a.renewed < a.budget.Renew {
				i := int(next.Add(1)) - 1
				if i >= len(names) {
					return
				}
				if all[i] = a.send(ctx, names[i]); all[i].err != nil {
					failed.Store(true)
				}
			}
		})
	}
	group.Wait()
	return all
}

// complete reports whether all Leases except the first had living holders within the last lease
// duration before the instant "now". All holders must have different pod names, because a
// controller may replace a pod by a pod with the same name. These two pods count as one.
func (a *arrival) complete(now time.Duration) bool {
	names := map[string]bool{a.PodName: true}
	for _, name := range a.Leases[1:] {
		s := a.seen[name]
		if !s.lives || now-s.wrote >= a.Duration || names[api.PodOf(s.holder)] {
			return false
		}
		names[api.PodOf(s.holder)] = true
	}
	return true
}

// record writes that the barrier is open, and releases the pod's Lease by the same write. If the
// write fails, the result is the pause until the next attempt.
func (a *arrival) record(ctx context.Context) time.Duration {
	opened := a.held.Clone()
	if opened.Annotations == nil {
		opened.Annotations = map[string]string{}
	}
	opened.Annotations[api.OpenedAnnotation] = strconv.Itoa(len(a.Leases))
	opened.Holder = ""
	if a.store(ctx, opened) != nil {
		a.recall(ctx)
		return a.backOff()
	}
	a.held, a.open = nil, true
	return 0
}

// sight has the facts that the reads of one Lease prove. Each read is consistent: the answer is at
// least as new as the instant at which the read was sent.
type sight struct {
	// known reports that the pod has read the Lease.
	known       bool
	uid, holder string
	version     string
	renewed     time.Time
	// asked is the instant at which the last read was sent. The field "since" is the instant of the
	// first answer with the present version.
	asked, since time.Duration
	// lives reports that the holder certainly wrote the Lease. The field "wrote" is the earliest
	// possible instant of that write.
	lives bool
	wrote time.Duration
}

// next returns the sight after a read that was sent and answered at the given instants. If this
// read shows a new write, the API server stored that write after the pod had sent the previous
// read. A write by a person keeps the holder and the time of renewal, and does not count.
func (s sight) next(l *kube.Lease, sent, answered time.Duration) sight {
	n := sight{
		known: true, uid: l.UID, holder: l.Holder, version: l.ResourceVersion, renewed: l.RenewTime,
		asked: sent, since: answered, lives: s.lives, wrote: s.wrote,
	}
	if s.known && s.uid == n.uid && s.version == n.version {
		n.since = s.since
	}
	if s.uid != n.uid || s.holder != n.holder {
		n.lives = false
	}
	// Agents create no Lease. So a new UID does not come from a write of the holder.
	// A restore of etcd brings a state with an earlier renew time back, although the holder may be dead.
	wrote := s.uid == n.uid && (s.holder != n.holder || n.renewed.After(s.renewed))
	if s.known && wrote && api.IsIdentity(n.holder) {
		n.lives, n.wrote = true, s.asked
	}
	return n
}
