// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"slices"
)

// ProofConfig names the gated containers of a pod.
type ProofConfig struct {
	// Containers are the gated containers.
	Containers []string
	// InitContainers are the gated init containers.
	InitContainers []string
	// Unbounded reports that the children have no deadline, because the pod has only a start
	// lock. In such a pod no earlier shim causes a doubt, and the drain of one container ends
	// no hold.
	Unbounded bool
	// Granted reports whether a note names a grant of the hold to a shim of the init container.
	// If Granted is nil, any shim may have had such a grant.
	Granted func(container, hold string) bool
	// Began reports whether this agent process itself began the hold. No other process can have granted
	// such a hold.
	Began func(hold string) bool
}

// Proof judges from the reports of a pod's shims which holds are over. It sends nothing, reads no clock,
// starts no goroutine, and knows no Lease.
type Proof struct {
	of ProofConfig
	// containers are all gated containers of the pod, including init containers.
	containers []string
	// list has the last report of each shim, in the order in which the shims started. After a
	// restart of the agent, the shims may connect in another order.
	list reports
	// outstanding has, for each hold, the shims that may have a child of that hold. Such a shim
	// got a grant or reported a child, and nothing has proven the end of that child.
	outstanding grants
	// claimed has, for each shim, the hold that is outstanding only because of the shim's own reports.
	// Any program of a gated container can send false reports. So each shim has one such hold at most.
	claimed map[ShimID]string
	// The field "heard" has the containers of which a shim has connected to this process.
	heard map[string]bool
	// doubts has, for each container, the doubt of its fresh shim.
	doubts  map[string]doubt
	endings endings
}

// endings has the holds of the latest successes and failures.
type endings struct {
	// init is the hold under which an init container last succeeded. The next grant under that
	// hold makes init empty.
	init string
	// The field "any" is the hold under which a container last succeeded, init container or not.
	// The field "failed" is the hold under which a container last failed.
	any, failed string
}

// doubt is a fresh shim's message that an earlier shim may still have a child of a hold.
type doubt struct {
	shim ShimID
	hold string
}

// NewProof returns the Proof of a pod whose shims have not reported yet.
func NewProof(c ProofConfig) *Proof {
	return &Proof{
		of:          c,
		containers:  slices.Concat(c.InitContainers, c.Containers),
		outstanding: grants{},
		claimed:     map[ShimID]string{},
		heard:       map[string]bool{},
		doubts:      map[string]doubt{},
	}
}

// Grant remembers that the agent sends a grant of the hold to the shim. From now on the shim may
// have a child of the hold.
func (s *Proof) Grant(hold string, id ShimID) {
	if s.endings.init == hold {
		s.endings.init = ""
	}
	if s.claimed[id] == hold {
		delete(s.claimed, id)
	}
	s.outstanding.add(hold, id)
}

// Clear remembers that the shim has no child of the hold, and will start none.
func (s *Proof) Clear(hold string, id ShimID) {
	s.outstanding.clear(hold, id)
	if s.claimed[id] == hold {
		delete(s.claimed, id)
	}
}

// Learn stores a shim's report, and derives from the report what is now proven.
func (s *Proof) Learn(r Report) {
	last, known := s.list.last(r.Shim)
	if r.Dead {
		// The death of this shim proves nothing about an earlier shim. So the doubt that this
		// shim reported stays.
		s.outstanding.clearAll(r.Shim)
		delete(s.claimed, r.Shim)
		if !known || last.Phase != Ended {
			s.endings.learn(r, s)
		}
		s.list = slices.DeleteFunc(s.list, func(k Report) bool { return k.Shim == r.Shim })
		return
	}
	s.list = s.list.put(r)
	if r.Connected && slices.Contains(s.containers, r.Container) {
		s.heard[r.Container] = true
	}
	s.doubt(r)
	if hold, ok := s.claimed[r.Shim]; ok && hold != r.Hold {
		// A shim has one child at a time. The agent has sent this shim no grant of the earlier hold, so
		// no such grant can still arrive.
		s.Clear(hold, r.Shim)
	}
	switch r.Phase {
	case Running, Draining:
		claims := !s.outstanding.has(r.Hold, r.Shim) || s.claimed[r.Shim] == r.Hold
		s.Grant(r.Hold, r.Shim)
		if claims {
			s.claimed[r.Shim] = r.Hold
		}
	case Waiting:
		// The child of the reported hold is dead, and a shim starts only one child under a hold.
		// A grant of another hold may still arrive, so only the reported hold is cleared.
		s.Clear(r.Hold, r.Shim)
	case Ended:
		// The container ends, so the shim starts no further child, even under a grant.
		s.outstanding.clearAll(r.Shim)
		delete(s.claimed, r.Shim)
		s.endings.learn(r, s)
	}
}

// learn stores the hold under which a container has succeeded or failed, unless another shim may
// still have a child of that hold. The argument r may also report the shim's death, because
// that report may be the first with the success or failure. A death without a reported failure
// is no failure: the kubelet may have killed the container at the end of its grace.
func (k *endings) learn(r Report, s *Proof) {
	if r.Phase != Ended || s.outstanding.of(r.Hold) {
		return
	}
	if r.Failed {
		k.failed = r.Hold
	}
	if !r.Completed {
		return
	}
	k.any = r.Hold
	if slices.Contains(s.of.InitContainers, r.Container) {
		k.init = r.Hold
	}
}

// doubt stores the earlier hold that a fresh shim reports as unproven. Only that shim, or a
// fresher one, can withdraw the doubt.
func (s *Proof) doubt(r Report) {
	before, ok := s.doubts[r.Container]
	switch {
	case r.Unproven != "":
		s.doubts[r.Container] = doubt{shim: r.Shim, hold: r.Unproven}
	case ok && s.list.index(r.Shim) >= s.list.index(before.shim):
		delete(s.doubts, r.Container)
	}
}

// Last returns the shim's last report. The second result is false for a shim that is unknown or
// dead.
func (s *Proof) Last(id ShimID) (Report, bool) { return s.list.last(id) }

// Reports returns the last report of each shim, in the order in which the shims
// started.
func (s *Proof) Reports() []Report { return slices.Clone(s.list) }

// Proven reports whether no child of the hold can be alive.
func (s *Proof) Proven(hold string) bool {
	switch {
	case hold == "" || s.Outstanding(hold) || s.Doubted(hold):
		return false
	case s.began(hold):
		return true
	}
	// An earlier agent process gave the grants of this hold. The fresh shim of each container
	// must report about the container's earlier shims. Before that report nothing is known
	// about the earlier shims.
	return len(s.containers) > 0 && !slices.ContainsFunc(s.containers, func(name string) bool { return !s.accounted(name, hold) })
}

func (s *Proof) began(hold string) bool { return s.of.Began != nil && s.of.Began(hold) }

// accounted reports whether it is certain that the container's earlier shims have no child of
// the hold. After the success of an init container, the kubelet does not start that container
// again. So that container has no fresh shim that could report, and the notes of grants decide.
func (s *Proof) accounted(container, hold string) bool {
	if s.heard[container] {
		return true
	}
	return slices.Contains(s.of.InitContainers, container) && s.of.Granted != nil && !s.of.Granted(container, hold)
}

// Doubted reports whether an earlier shim that is not connected may have a child of the hold. An
// earlier shim that is connected sends its own reports, and the agent drains that shim when a
// fresher shim connects. If the children have no deadline ([ProofConfig.Unbounded]), the result is
// false.
func (s *Proof) Doubted(hold string) bool {
	if s.of.Unbounded {
		return false
	}
	for container, d := range s.doubts {
		if hold != "" && s.mayMean(d.hold, hold) && !s.connected(hold, container) {
			return true
		}
	}
	return false
}

// mayMean reports whether the hold in a note may be the given hold. An unreadable note may name
// any hold, except one that this process itself began.
func (s *Proof) mayMean(noted, hold string) bool {
	return noted == hold || noted == Unreadable && !s.began(hold)
}

// The method "connected" reports whether a connected shim of the container may have a child of
// the hold.
func (s *Proof) connected(hold, container string) bool {
	return slices.ContainsFunc(s.outstanding[hold], func(id ShimID) bool {
		last, known := s.list.last(id)
		return known && last.Connected && last.Container == container
	})
}

// Outstanding reports whether a shim may have a child of the hold, according to the grants and
// reports that this process knows.
func (s *Proof) Outstanding(hold string) bool { return s.outstanding.of(hold) }

// Granted reports whether the shim may have a child of the hold.
func (s *Proof) Granted(hold string, id ShimID) bool {
	return s.outstanding.has(hold, id)
}

// MayHaveChild reports whether the shim may have a child of any hold.
func (s *Proof) MayHaveChild(id ShimID) bool {
	for hold := range s.outstanding {
		if s.outstanding.has(hold, id) {
			return true
		}
	}
	return false
}

// Grantees returns the last reports of the shims that may have a child of the hold.
func (s *Proof) Grantees(hold string) []Report {
	var found []Report
	for _, id := range s.outstanding[hold] {
		if last, known := s.list.last(id); known {
			found = append(found, last)
		}
	}
	return found
}

// Supported reports whether the hold needs renewals. A hold needs renewals while a connected shim
// may have a child of the hold. After the success of an init container the hold also needs
// renewals, because the kubelet starts the next container.
func (s *Proof) Supported(hold string) bool {
	return s.Succeeded(hold) || slices.ContainsFunc(s.Grantees(hold), func(r Report) bool { return r.Connected })
}

// Succeeded reports whether an init container has succeeded under the hold, and no grant of the
// hold has followed.
func (s *Proof) Succeeded(hold string) bool { return hold != "" && s.endings.init == hold }

// Outcome reports whether a container has succeeded, and whether a container has failed, under
// the hold. Both results are false while a shim may have a child of that hold.
func (s *Proof) Outcome(hold string) (completed, failed bool) {
	over := hold != "" && !s.outstanding.of(hold)
	return over && s.endings.any == hold, over && s.endings.failed == hold
}

// Running reports whether the application runs under the hold, and is not draining. Init
// containers do not count, because they serve no clients.
func (s *Proof) Running(hold string) bool {
	return slices.ContainsFunc(s.list, func(r Report) bool {
		return r.Phase == Running && r.Hold == hold && !slices.Contains(s.of.InitContainers, r.Container)
	})
}

// Alive reports whether any connected shim has a child, under any hold.
func (s *Proof) Alive() bool {
	return slices.ContainsFunc(s.list, func(r Report) bool { return r.Connected && r.HasChild() })
}

// Waiting returns the waiting shims that would accept a grant: each is connected, not silent,
// and the freshest shim of its container.
func (s *Proof) Waiting() []Report {
	var found []Report
	for i, r := range s.list {
		if r.Connected && !r.Silent && r.Phase == Waiting && !s.list.fresher(i) {
			found = append(found, r)
		}
	}
	return found
}

// Superseded returns each shim that has a child although its container has a fresher shim.
func (s *Proof) Superseded() []Report {
	var found []Report
	for i, r := range s.list {
		if r.HasChild() && s.list.fresher(i) {
			found = append(found, r)
		}
	}
	return found
}

// Grantable returns the waiting shims to which the agent may now send a grant of the
// hold.
func (s *Proof) Grantable(hold string) []Report {
	if s.Doubted(hold) {
		return nil
	}
	return slices.DeleteFunc(s.Waiting(), func(r Report) bool {
		// A waiting shim that names the hold can start no further child under that hold.
		return r.Hold == hold || s.occupied(hold, r)
	})
}

// occupied reports whether another shim of the same container may have a child of the hold. A shim
// that has not reported counts as a shim of that container.
func (s *Proof) occupied(hold string, r Report) bool {
	return slices.ContainsFunc(s.outstanding[hold], func(id ShimID) bool {
		other, known := s.list.last(id)
		return id != r.Shim && (!known || other.Container == r.Container)
	})
}

// Drained reports whether a shim that had a child of the hold waits again. Such a shim has
// drained without an order, so the whole hold must end. If the children have no deadline
// ([ProofConfig.Unbounded]), the hold goes on, and the result is false.
func (s *Proof) Drained(hold string) bool {
	return !s.of.Unbounded && slices.ContainsFunc(s.list, func(r Report) bool {
		return r.Connected && r.Phase == Waiting && r.Hold == hold
	})
}

// The type "reports" has the last report of each shim, in the order in which the shims started.
type reports []Report

// index returns the index of the shim's report, or -1 for an unknown or dead shim.
func (all reports) index(id ShimID) int {
	return slices.IndexFunc(all, func(r Report) bool { return r.Shim == id })
}

// last returns the shim's last report. The second result is false for a shim that is unknown or
// dead.
func (all reports) last(id ShimID) (Report, bool) {
	if at := all.index(id); at >= 0 {
		return all[at], true
	}
	return Report{}, false
}

// put returns the reports in which this report replaces the last report of the same shim. The
// report of a new shim is inserted after the reports of all shims that started earlier or at the
// same instant.
func (all reports) put(r Report) reports {
	if at := all.index(r.Shim); at >= 0 {
		all[at] = r
		return all
	}
	at := slices.IndexFunc(all, func(k Report) bool { return k.Began > r.Began })
	if at < 0 {
		at = len(all)
	}
	return slices.Insert(all, at, r)
}

// fresher reports whether a connected shim of the same container follows the shim at the index i.
// Such a shim started later, or at the same instant.
func (all reports) fresher(i int) bool {
	return slices.ContainsFunc(all[i+1:], func(other Report) bool {
		return other.Container == all[i].Container && other.Connected
	})
}

// grants has, for each hold, the shims that may have a child of that hold.
type grants map[string][]ShimID

// The method "of" returns true if any shim may have a child of the hold.
func (g grants) of(hold string) bool { return len(g[hold]) > 0 }

// has reports whether the shim may have a child of the hold.
func (g grants) has(hold string, id ShimID) bool { return slices.Contains(g[hold], id) }

func (g grants) add(hold string, id ShimID) {
	if !g.has(hold, id) {
		g[hold] = append(g[hold], id)
	}
}

func (g grants) clear(hold string, id ShimID) {
	left := slices.DeleteFunc(g[hold], func(other ShimID) bool { return other == id })
	if len(left) == 0 {
		delete(g, hold)
		return
	}
	g[hold] = left
}

// clearAll remembers that the shim has no child of any hold.
func (g grants) clearAll(id ShimID) {
	for hold := range g {
		g.clear(hold, id)
	}
}
