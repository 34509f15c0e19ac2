// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"maps"
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// Last returns the shim's last report. The second result is false for a shim that is unknown or
// dead.
func (s *Shims) Last(id gate.ShimID) (gate.Report, bool) { return s.list.last(id) }

// Reports returns the last report of each shim, in the order in which the shims
// started.
func (s *Shims) Reports() []gate.Report { return slices.Clone(s.list) }

// Begun returns the holds that this agent process began and has not forgotten.
func (s *Shims) Begun() []string { return slices.Collect(maps.Keys(s.begun)) }

// Proven reports whether no child of the hold can be alive.
func (s *Shims) Proven(hold string) bool {
	switch {
	case hold == "" || s.Outstanding(hold) || s.Doubted(hold):
		return false
	case s.begun[hold]:
		return true
	}
	// An earlier agent process gave the grants of this hold. The fresh shim of each container
	// must report about the container's earlier shims. Before that report nothing is known
	// about the earlier shims.
	return len(s.containers) > 0 && !slices.ContainsFunc(s.containers, func(name string) bool { return !s.accounted(name, hold) })
}

// accounted reports whether it is certain that the container's earlier shims have no child of
// the hold. After the success of an init container, the kubelet does not start that container
// again. So that container has no fresh shim that could report, and the notes of grants decide.
func (s *Shims) accounted(container, hold string) bool {
	if s.heard[container] {
		return true
	}
	return slices.Contains(s.inits, container) && s.granted != nil && !s.granted(container, hold)
}

// Doubted reports whether an earlier shim that is not connected may have a child of the hold. An
// earlier shim that is connected sends its own reports, and the agent drains that shim when a
// fresher shim connects. If the children have no deadline ([Config.Unbounded]), the result is
// false.
func (s *Shims) Doubted(hold string) bool {
	if s.unbounded {
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
func (s *Shims) mayMean(noted, hold string) bool {
	return noted == hold || noted == gate.Unreadable && !s.begun[hold]
}

// The method "connected" reports whether a connected shim of the container may have a child of
// the hold.
func (s *Shims) connected(hold, container string) bool {
	return slices.ContainsFunc(s.outstanding[hold], func(id gate.ShimID) bool {
		last, known := s.list.last(id)
		return known && last.Connected && last.Container == container
	})
}

// Outstanding reports whether a shim may have a child of the hold, according to the grants and
// reports that this process knows.
func (s *Shims) Outstanding(hold string) bool { return s.outstanding.of(hold) }

// Granted reports whether the shim may have a child of the hold.
func (s *Shims) Granted(hold string, id gate.ShimID) bool {
	return s.outstanding.has(hold, id)
}

// MayHaveChild reports whether the shim may have a child of any hold.
func MayHaveChild(s *Shims, id gate.ShimID) bool {
	for hold := range s.outstanding {
		if s.outstanding.has(hold, id) {
			return true
		}
	}
	return false
}

// Grantees returns the last reports of the shims that may have a child of the hold.
func (s *Shims) Grantees(hold string) []gate.Report {
	var found []gate.Report
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
func (s *Shims) Supported(hold string) bool {
	return s.Succeeded(hold) || slices.ContainsFunc(s.Grantees(hold), func(r gate.Report) bool { return r.Connected })
}

// Succeeded reports whether an init container has succeeded under the hold, and no grant of the
// hold has followed.
func (s *Shims) Succeeded(hold string) bool { return hold != "" && s.endings.init == hold }

// Outcome reports whether a container has succeeded, and whether a container has failed, under
// the hold. Both results are false while a shim may have a child of that hold.
func (s *Shims) Outcome(hold string) (completed, failed bool) {
	over := hold != "" && !s.outstanding.of(hold)
	return over && s.endings.any == hold, over && s.endings.failed == hold
}

// Running reports whether the application runs under the hold, and is not draining. Init
// containers do not count, because they serve no clients.
func (s *Shims) Running(hold string) bool {
	return slices.ContainsFunc(s.list, func(r gate.Report) bool {
		return r.Phase == gate.Running && r.Hold == hold && !slices.Contains(s.inits, r.Container)
	})
}

// Alive reports whether any connected shim has a child, under any hold.
func (s *Shims) Alive() bool {
	return slices.ContainsFunc(s.list, func(r gate.Report) bool { return r.Connected && HasChild(r) })
}

// HasChild reports whether the shim of the report has, or may have, a child.
func HasChild(r gate.Report) bool { return r.Phase == gate.Running || r.Phase == gate.Draining }

// Waiting returns the waiting shims that would accept a grant: each is connected, not silent,
// and the freshest shim of its container.
func (s *Shims) Waiting() []gate.Report {
	var found []gate.Report
	for i, r := range s.list {
		if r.Connected && !r.Silent && r.Phase == gate.Waiting && !s.list.fresher(i) {
			found = append(found, r)
		}
	}
	return found
}

// Superseded returns each shim that has a child although its container has a fresher shim.
func (s *Shims) Superseded() []gate.Report {
	var found []gate.Report
	for i, r := range s.list {
		if HasChild(r) && s.list.fresher(i) {
			found = append(found, r)
		}
	}
	return found
}

// Grantable returns the waiting shims to which the agent may now send a grant of the
// hold.
func (s *Shims) Grantable(hold string) []gate.Report {
	if s.Doubted(hold) {
		return nil
	}
	return slices.DeleteFunc(s.Waiting(), func(r gate.Report) bool {
		// A waiting shim that names the hold can start no further child under that hold.
		return r.Hold == hold || s.occupied(hold, r)
	})
}

// occupied reports whether another shim of the same container may have a child of the hold. A shim
// that has not reported counts as a shim of that container.
func (s *Shims) occupied(hold string, r gate.Report) bool {
	return slices.ContainsFunc(s.outstanding[hold], func(id gate.ShimID) bool {
		other, known := s.list.last(id)
		return id != r.Shim && (!known || other.Container == r.Container)
	})
}

// Drained reports whether a shim that had a child of the hold waits again. Such a shim has
// drained without an order, so the whole hold must end. If the children have no deadline
// ([Config.Unbounded]), the hold goes on, and the result is false.
func (s *Shims) Drained(hold string) bool {
	return !s.unbounded && slices.ContainsFunc(s.list, func(r gate.Report) bool {
		return r.Connected && r.Phase == gate.Waiting && r.Hold == hold
	})
}
