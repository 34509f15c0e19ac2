// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// These are the names of the invariants of pods with a barrier, like the names in check.go. Each
// comment describes the violation.
const (
	// early means that a barrier opens although fewer pods of its run have arrived than its size
	// demands. A pod that has died still counts for one lease duration.
	early = "early"
	// through means that a pod goes on although the barrier of its run was not open.
	through = "through"
	// closed means that the record of an open barrier is gone, or names fewer pods than before.
	closed = "closed"
	// HeldUp means that a pod waits for longer than the rules allow, in quiet times. The wait
	// counts only while the barrier of the pod's run is open, or while enough pods of that run
	// wait.
	HeldUp = "held-up"
)

// checkOpened judges a stored write of a barrier's Lease. The argument "was" is the state before
// the write; nil for a new Lease.
func checkOpened(w *World, by, lease string, sent time.Duration, was, is *apiserver.Lease) {
	if was == nil {
		was = new(apiserver.Lease)
	}
	before, after := api.Opened(was.Annotations[api.OpenedAnnotation]), api.Opened(is.Annotations[api.OpenedAnnotation])
	i := slices.IndexFunc(w.Gathered, func(r *Run) bool { return slices.Contains(r.Leases, lease) })
	if i < 0 || before == after {
		return
	}
	of := w.Gathered[i]
	w.Note(by, "OPENS %s for %d pods", lease, after)
	switch {
	case after < before:
		w.Violate(closed, "%s makes the record of %s %d instead of %d", by, lease, after, before)
	case lease != of.Leases[0] || after != of.Barrier.Size || is.Holder != "" || was.Holder != by:
		w.Violate(early, "%s opens %s for %d pods, which %q held", by, lease, after, was.Holder)
	}
	checkArrived(w, of, by, sent)
}

// checkArrived judges the write that opens a barrier. In the lease duration before the sending of
// that write, enough pods for the barrier's size must have written to a Lease of the barrier.
// Enough pods must also have lived in that time. A request that was under way may renew the Lease
// of a dead pod. So a pod also counts as alive if it died earlier, by at most the longest delay of
// a request.
func checkArrived(w *World, of *Run, by string, sent time.Duration) {
	alive, bound := 0, sent-Slow(of.Duration)
	for _, p := range of.all {
		switch {
		case p.Name == api.PodOf(by) && p.Node.wokeAt > bound:
			return // the clock of this machine stood still
		case p.client != nil && lived(p) >= bound-w.API.Latest:
			alive++
		}
	}
	if alive < of.Barrier.Size {
		w.Violate(early, "%s opens the barrier of %s, and only %d pods were alive since %v", by, of.Name, alive, bound-w.API.Latest)
	}
	holders := map[string]bool{by: true}
	for _, lease := range of.Leases[1:] {
		if holder := renewedSince(w.API.Object("Lease", lease), bound); holder != "" {
			holders[holder] = true
		}
	}
	if len(holders) < of.Barrier.Size {
		w.Violate(early, "%s opens the barrier of %s, and only %d pods had arrived since %v", by, of.Name, len(holders), bound)
	}
}

// lived returns the last instant at which the pod counted at its barrier. If the pod still counts,
// the result is the present instant. A pod counts while a process of its container lives. If its
// program waits through the local API, the pod counts only while a call waits. After that call the
// pod still counts for two seconds ([countsOn]). The container must have had a process.
func lived(p *Comer) time.Duration {
	last := p.died
	if !p.client.Dead {
		last = p.w.Now()
	}
	if p.of.Programs && !p.waits {
		last = min(last, p.waited+Slow(countsOn))
	}
	return last
}

// renewedSince returns the identity of the last pod that has written the Lease as its holder since
// the instant "at"; empty for none. A write that keeps the renew time comes from a person.
func renewedSince(o *apiserver.Object, at time.Duration) (holder string) {
	var last apiserver.Lease
	for _, v := range o.Since(at) {
		if v.Lease == nil {
			continue
		}
		if v.At >= at && strings.Contains(v.Lease.Holder, "_") && !v.Lease.RenewTime.Equal(last.RenewTime.Time) {
			holder = v.Lease.Holder
		}
		last = *v.Lease
	}
	return holder
}

// checkThrough judges a pod that goes on after its wait at a barrier. At some instant since the
// start of the pod's process, the barrier must have been open.
func checkThrough(p *Comer) {
	opened := func(v apiserver.Version) bool {
		return v.Lease != nil && api.Opened(v.Lease.Annotations[api.OpenedAnnotation]) >= p.of.Barrier.Size
	}
	if !slices.ContainsFunc(p.w.API.Object("Lease", p.of.Leases[0]).Since(p.began), opened) {
		p.w.Violate(through, "%s goes on, and the barrier of %s is not open", p.Name, p.of.Name)
	}
}
