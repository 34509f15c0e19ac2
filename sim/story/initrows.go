// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"time"

	"github.com/metaparticle-io/metaparticle/sim/world"
)

// initRows has the cases of the story "table" about init containers.
type initRows struct{ *demands }

func (r initRows) rows() map[string]func() {
	return map[string]func(){
		"application after init containers": r.prepared,
		"init container fails":              r.unprepared,
		"reports are read late":             r.readLate,
	}
}

// replaceStandbys replaces the standbys by pods whose init containers have not run. The
// function returns false if the pods have no init containers, or after a violation.
func (r initRows) replaceStandbys() bool {
	if len(r.templates[0].Inits) == 0 {
		return false
	}
	r.stopStandbys()
	r.Do(r.heal)
	return r.ready()
}

// prepared demands that the application runs under the hold of its init containers.
func (r initRows) prepared() {
	if !r.replaceStandbys() {
		return
	}
	r.handover(stopPod)
	var main *world.Child
	r.Until(time.Minute, func() bool {
		for _, c := range r.Checks.Alive {
			if !c.Container.Init && c.Began > r.at && c.Pod() != r.former {
				main = c
			}
		}
		return main != nil
	})
	if main == nil {
		r.fail(world.Nobody, "no application a minute after its init containers")
		return
	}
	r.Do(func() {
		for _, c := range main.Pod().Containers {
			if c.Init && c.Since > r.at && c.Prepared != main.Hold {
				r.Violate(world.Kept, "%s runs under hold %s, and was prepared under %s", main.Name, main.Hold, c.Prepared)
			}
		}
	})
}

// unprepared makes an init container fail. The kubelet restarts that container only after the
// back-off, so another pod must acquire the slot.
func (r initRows) unprepared() {
	if !r.replaceStandbys() {
		return
	}
	r.handover(stopPod)
	r.handover(func(c *world.Child) { c.Exits("fails", 1) })
}

// readLate makes the agent's loop read one report for two events: the end of an init
// container, and the death of its shim.
func (r initRows) readLate() {
	if len(r.templates[0].Inits) == 0 {
		return
	}
	r.templates[0].LateReader = 200 * time.Millisecond
	r.prepared()
	r.templates[0].LateReader = 0
	r.Do(func() {
		for _, p := range r.Pods {
			p.LateReader = 0
		}
	})
}
