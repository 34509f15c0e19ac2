// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import "time"

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
	if len(r.templates[0].inits) == 0 {
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
	var main *child
	r.Until(time.Minute, func() bool {
		for _, c := range r.checks.alive {
			if !c.container.init && c.began > r.at && c.pod() != r.former {
				main = c
			}
		}
		return main != nil
	})
	if main == nil {
		r.fail(nobody, "no application a minute after its init containers")
		return
	}
	r.Do(func() {
		for _, c := range main.pod().containers {
			if c.init && c.since > r.at && c.prepared != main.hold {
				r.Violate(kept, "%s runs under hold %s, and was prepared under %s", main.name, main.hold, c.prepared)
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
	r.handover(func(c *child) { c.exits("fails", 1) })
}

// readLate makes the agent's loop read one report for two events: the end of an init
// container, and the death of its shim.
func (r initRows) readLate() {
	if len(r.templates[0].inits) == 0 {
		return
	}
	r.templates[0].lateReader = 200 * time.Millisecond
	r.prepared()
	r.templates[0].lateReader = 0
	r.Do(func() {
		for _, p := range r.pods {
			p.lateReader = 0
		}
	})
}
