// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"maps"
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// Config names the gated containers of a pod.
type Config struct {
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
}

// Shims is what this agent process knows about the shims of its pod, from their reports.
type Shims struct {
	// containers are all gated containers of the pod, including init containers.
	containers []string
	// inits are the gated init containers.
	inits []string
	// granted reports whether a note names a grant of the hold to a shim of the container; nil
	// for a gate without such notes.
	granted func(container, hold string) bool
	// unbounded reports that the children have no deadline.
	unbounded bool
	// list has the last report of each shim, in the order in which the shims started. After a
	// restart of the agent, the shims may connect in another order.
	list reports
	// outstanding has, for each hold, the shims that may have a child of that hold. Such a shim
	// got a grant or reported a child, and nothing has proven the end of that child.
	outstanding grants
	// claimed has, for each shim, the hold that is outstanding only because of the shim's own reports.
	// Any program of a gated container can send false reports. So each shim has one such hold at most.
	claimed map[gate.ShimID]string
	// begun has the holds that this process itself began. No other process can have granted
	// such a hold.
	begun map[string]bool
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
	shim gate.ShimID
	hold string
}

// New returns the Shims of a pod whose shims have not reported yet.
func New(c Config) *Shims {
	return &Shims{
		containers:  slices.Concat(c.InitContainers, c.Containers),
		inits:       c.InitContainers,
		granted:     c.Granted,
		unbounded:   c.Unbounded,
		outstanding: grants{},
		claimed:     map[gate.ShimID]string{},
		begun:       map[string]bool{},
		heard:       map[string]bool{},
		doubts:      map[string]doubt{},
	}
}

// Begin remembers that this agent process begins the hold.
func (s *Shims) Begin(hold string) { s.begun[hold] = true }

// Forget drops each hold that no Lease names, and of which no shim can have a child. No decision
// needs the proof of such a hold any more. If a late write still stores a dropped hold, the hold
// counts as that of an earlier agent process.
func (s *Shims) Forget(named func(hold string) bool) {
	maps.DeleteFunc(s.begun, func(hold string, _ bool) bool { return !s.outstanding.of(hold) && !named(hold) })
}

// Grant remembers that the agent sends a grant of the hold to the shim. From now on the shim may
// have a child of the hold.
func (s *Shims) Grant(hold string, id gate.ShimID) {
	if s.endings.init == hold {
		s.endings.init = ""
	}
	if s.claimed[id] == hold {
		delete(s.claimed, id)
	}
	s.outstanding.add(hold, id)
}

// Clear remembers that the shim has no child of the hold, and will start none.
func (s *Shims) Clear(hold string, id gate.ShimID) {
	s.outstanding.clear(hold, id)
	if s.claimed[id] == hold {
		delete(s.claimed, id)
	}
}

// Learn stores a shim's report, and derives from the report what is now proven.
func (s *Shims) Learn(r gate.Report) {
	last, known := s.list.last(r.Shim)
	if r.Dead {
		// The death of this shim proves nothing about an earlier shim. So the doubt that this
		// shim reported stays.
		s.outstanding.clearAll(r.Shim)
		delete(s.claimed, r.Shim)
		if !known || last.Phase != gate.Ended {
			s.endings.learn(r, s)
		}
		s.list = slices.DeleteFunc(s.list, func(k gate.Report) bool { return k.Shim == r.Shim })
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
	case gate.Running, gate.Draining:
		claims := !s.outstanding.has(r.Hold, r.Shim) || s.claimed[r.Shim] == r.Hold
		s.Grant(r.Hold, r.Shim)
		if claims {
			s.claimed[r.Shim] = r.Hold
		}
	case gate.Waiting:
		// The child of the reported hold is dead, and a shim starts only one child under a hold.
		// A grant of another hold may still arrive, so only the reported hold is cleared.
		s.Clear(r.Hold, r.Shim)
	case gate.Ended:
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
func (k *endings) learn(r gate.Report, s *Shims) {
	if r.Phase != gate.Ended || s.outstanding.of(r.Hold) {
		return
	}
	if r.Failed {
		k.failed = r.Hold
	}
	if !r.Completed {
		return
	}
	k.any = r.Hold
	if slices.Contains(s.inits, r.Container) {
		k.init = r.Hold
	}
}

// doubt stores the earlier hold that a fresh shim reports as unproven. Only that shim, or a
// fresher one, can withdraw the doubt.
func (s *Shims) doubt(r gate.Report) {
	before, ok := s.doubts[r.Container]
	switch {
	case r.Unproven != "":
		s.doubts[r.Container] = doubt{shim: r.Shim, hold: r.Unproven}
	case ok && s.list.index(r.Shim) >= s.list.index(before.shim):
		delete(s.doubts, r.Container)
	}
}
