// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// shim is what is known of one shim.
type shim struct {
	report gate.Report
	// until is the deadline of the last grant that was sent on this connection.
	until time.Duration
	// told is the hold whose drain was asked for on this connection.
	told string
	// killed is the hold whose child was to be killed at once on this connection.
	killed string
	// leapt counts the leaps that the agent had heard of by the shim's last one.
	// answered is the shim's leap that was last answered on this connection.
	leapt, answered int
	// ended is the hold with whose child the container was asked to end, too.
	ended string
}

// child reports whether the shim has, or may have, a child.
func (s *shim) child() bool {
	return s.report.Phase == gate.Running || s.report.Phase == gate.Draining
}

// shims is what this agent process knows of all shims of its pod, and what that
// proves. See the package document for which reports are proof and which are not.
type shims struct {
	// containers are all the gated ones of the pod, the init containers too.
	containers []string
	// inits are the gated init containers.
	inits []string
	// between is the hold under which an init container of the pod succeeded
	// last, as long as nothing was granted since: what comes next is on its way.
	between string
	// list is in the order in which the shims started: after a restart of this
	// agent they connect in any.
	list []*shim
	// owed are, for each hold, the shims that had a grant of it, or reported a
	// child of it, and are not proven dead since.
	owed map[string][]gate.ShimID
	// begun are the holds that this process itself began: nobody else can have
	// given a grant of one.
	begun map[string]bool
	// heard are the containers from which a shim connected to this process.
	heard map[string]bool
	// unproven is, for each container, the hold that a shim which is gone may
	// still have a child of, as the fresh shim's report has it.
	unproven map[string]doubt
	// granted tells of the notes of grants; nil if there are none to read.
	granted func(container, hold string) bool
}

// doubt is a hold that is not proven to be over, and the shim that says so.
type doubt struct {
	shim gate.ShimID
	hold string
}

func newShims(containers []string, inits ...string) *shims {
	return &shims{
		containers: slices.Concat(inits, containers),
		inits:      inits,
		owed:       map[string][]gate.ShimID{},
		begun:      map[string]bool{},
		heard:      map[string]bool{},
		unproven:   map[string]doubt{},
	}
}

// note takes in a report.
func (s *shims) note(r gate.Report) {
	known := s.find(r.Shim)
	switch {
	case r.Dead:
		// What it said of an earlier shim stays unproven: it is its own death
		// alone that is proven here.
		s.settle(r.Shim)
		if known == nil || known.report.Phase != gate.Ended {
			s.succeeded(r)
		}
		s.list = slices.DeleteFunc(s.list, func(k *shim) bool { return k.report.Shim == r.Shim })
		return
	case known == nil:
		known = s.insert(r)
	case r.Connected && !known.report.Connected:
		// What was sent on the old connection may not have arrived.
		known.until, known.told, known.ended = 0, "", ""
		known.killed, known.answered = "", 0
	}
	known.report = r
	if r.Connected {
		s.heard[r.Container] = true
	}
	s.doubt(r)
	switch r.Phase {
	case gate.Running, gate.Draining:
		s.owe(r.Hold, r.Shim)
	case gate.Waiting:
		// The child of that hold is dead, and the same hold is granted to the
		// same shim only once. A grant of another hold may be on its way.
		s.clear(r.Hold, r.Shim)
	case gate.Ended:
		// The container ends: whatever it was granted, it starts nothing more.
		s.settle(r.Shim)
		s.succeeded(r)
	}
}

// insert puts a shim behind those that started before it.
func (s *shims) insert(r gate.Report) *shim {
	at := slices.IndexFunc(s.list, func(k *shim) bool { return k.report.Began > r.Began })
	if at < 0 {
		at = len(s.list)
	}
	k := &shim{}
	s.list = slices.Insert(s.list, at, k)
	return k
}

// succeeded notes the success of an init container, under whose hold nothing lives
// any more. A late loop may hear of it only with the death of its shim.
func (s *shims) succeeded(r gate.Report) {
	if r.Phase == gate.Ended && r.Completed && slices.Contains(s.inits, r.Container) && len(s.owed[r.Hold]) == 0 {
		s.between = r.Hold
	}
}

// vouched reports whether the container's shims of earlier agent processes are
// spoken for. An init container that has succeeded is not started again, so no
// fresh shim will say so; the notes of the grants have to.
func (s *shims) vouched(container, hold string) bool {
	if s.heard[container] {
		return true
	}
	return slices.Contains(s.inits, container) && s.granted != nil && !s.granted(container, hold)
}

// doubt notes which earlier hold a fresh shim cannot vouch for. Only that shim,
// or one that is fresher, can take it back.
func (s *shims) doubt(r gate.Report) {
	before, ok := s.unproven[r.Container]
	switch {
	case r.Unproven != "":
		s.unproven[r.Container] = doubt{shim: r.Shim, hold: r.Unproven}
	case ok && !s.older(r.Shim, before.shim):
		delete(s.unproven, r.Container)
	}
}

// older reports whether a started before b. One that is gone is older.
func (s *shims) older(a, b gate.ShimID) bool {
	index := func(id gate.ShimID) int {
		return slices.IndexFunc(s.list, func(k *shim) bool { return k.report.Shim == id })
	}
	return index(a) < index(b)
}

func (s *shims) find(id gate.ShimID) *shim {
	for _, known := range s.list {
		if known.report.Shim == id {
			return known
		}
	}
	return nil
}

func (s *shims) owe(hold string, id gate.ShimID) {
	if s.between == hold {
		s.between = ""
	}
	if !slices.Contains(s.owed[hold], id) {
		s.owed[hold] = append(s.owed[hold], id)
	}
}

// forget drops the holds that no Lease names and nothing is owed of: nobody asks for
// proof about them any more. If a write that was given up is stored late after all,
// its hold is proven as one of an earlier process is, or waited out.
func (s *shims) forget(named func(hold string) bool) {
	maps.DeleteFunc(s.begun, func(hold string, _ bool) bool { return len(s.owed[hold]) == 0 && !named(hold) })
}

func (s *shims) clear(hold string, id gate.ShimID) {
	left := slices.DeleteFunc(s.owed[hold], func(other gate.ShimID) bool { return other == id })
	if len(left) == 0 {
		delete(s.owed, hold)
		return
	}
	s.owed[hold] = left
}

// settle clears a shim from all holds.
func (s *shims) settle(id gate.ShimID) {
	for hold := range s.owed {
		s.clear(hold, id)
	}
}

// doubted reports whether some container's earlier shim may still have a child
// of the hold, and is not there to be asked. One that is connected answers for
// itself: it is owed, and drained when a fresher one comes.
func (s *shims) doubted(hold string) bool {
	for container, d := range s.unproven {
		if hold != "" && s.mayMean(d.hold, hold) && !s.answers(hold, container) {
			return true
		}
	}
	return false
}

// mayMean reports whether a note that names the one hold may be of the other. One
// that cannot be read is of no hold that this process itself began.
func (s *shims) mayMean(noted, hold string) bool {
	return noted == hold || noted == gate.Unreadable && !s.begun[hold]
}

func (s *shims) answers(hold, container string) bool {
	return slices.ContainsFunc(s.owed[hold], func(id gate.ShimID) bool {
		known := s.find(id)
		return known != nil && known.report.Connected && known.report.Container == container
	})
}

// proven reports whether every shim that was ever granted the hold is known to
// be dead, or to have no child of it any more.
func (s *shims) proven(hold string) bool {
	switch {
	case hold == "" || len(s.owed[hold]) > 0 || s.doubted(hold):
		return false
	case s.begun[hold]:
		return true
	}
	// An earlier process gave the grants. Each container's fresh shim speaks
	// for those before it; a container that is silent speaks for nothing.
	return len(s.containers) > 0 && !slices.ContainsFunc(s.containers, func(name string) bool { return !s.vouched(name, hold) })
}

// supported reports whether a shim is connected that has a grant, or a child,
// of the hold. Without one, nobody is renewed for; between an init container and
// what comes after it, nothing runs that could be forgotten.
func (s *shims) supported(hold string) bool {
	return s.between == hold || slices.ContainsFunc(s.owed[hold], func(id gate.ShimID) bool {
		known := s.find(id)
		return known != nil && known.report.Connected
	})
}

// running reports whether the application, a child of the hold, is known to run,
// undrained. What runs in an init container serves nobody.
func (s *shims) running(hold string) bool {
	return slices.ContainsFunc(s.list, func(k *shim) bool {
		return k.report.Phase == gate.Running && k.report.Hold == hold && !slices.Contains(s.inits, k.report.Container)
	})
}

// alive reports whether any connected shim has a child, of whatever hold.
func (s *shims) alive() bool {
	return slices.ContainsFunc(s.list, func(k *shim) bool { return k.report.Connected && k.child() })
}

// waiting are the shims that would take a grant: connected, not frozen, and the
// freshest of their container.
func (s *shims) waiting() []*shim {
	var found []*shim
	for i, k := range s.list {
		r := k.report
		if !r.Connected || r.Silent || r.Phase != gate.Waiting {
			continue
		}
		fresher := slices.ContainsFunc(s.list[i+1:], func(other *shim) bool {
			return other.report.Container == r.Container && other.report.Connected
		})
		if !fresher {
			found = append(found, k)
		}
	}
	return found
}

// grantable are the waiting shims that may have a grant of the hold now.
func (s *shims) grantable(hold string) []*shim {
	if s.doubted(hold) {
		return nil
	}
	return slices.DeleteFunc(s.waiting(), func(k *shim) bool {
		// One that had a child of this hold was drained of it: that part of
		// the hold is over.
		return k.report.Hold == hold || k.told == hold || s.taken(hold, k)
	})
}

// taken reports whether another shim of the same container has a grant or a
// child of the hold and is not proven dead.
func (s *shims) taken(hold string, k *shim) bool {
	return slices.ContainsFunc(s.owed[hold], func(id gate.ShimID) bool {
		other := s.find(id)
		return id != k.report.Shim && (other == nil || other.report.Container == k.report.Container)
	})
}

// superseded are shims with a child whose container has a fresher one.
func (s *shims) superseded() []*shim {
	var found []*shim
	for i, k := range s.list {
		if k.child() && slices.ContainsFunc(s.list[i+1:], func(other *shim) bool {
			return other.report.Container == k.report.Container && other.report.Connected
		}) {
			found = append(found, k)
		}
	}
	return found
}

// drained reports whether a shim that had a child of the hold waits again: it
// drained by itself. Its part of the hold is over, so all of it is.
func (s *shims) drained(hold string) bool {
	return slices.ContainsFunc(s.list, func(k *shim) bool {
		return k.report.Connected && k.report.Phase == gate.Waiting && k.report.Hold == hold
	})
}
