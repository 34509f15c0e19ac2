// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// deletion has the API server's answers about the pod's deletion.
//
// A kubelet ends its containers by itself. But a signal that comes before the process
// exists is lost, and then the container stays until the grace is over. So a pod that
// knows of its deletion begins no hold. A hold that began just before is given back,
// and a longer hold continues.
//
// A controller may delete all pods of a workload at once, and the holder may end before a
// standby knows of that. So the agent checks for a deletion with each acquiring write, and
// grants nothing before the check has ended.
type deletion struct {
	// known reports that the pod is being deleted.
	known bool
	// asked is the hold under whose status the API server answered last.
	asked string
	// seen is the hold under which its first answer reported the deletion.
	seen string
	// begun counts the checks, and ended is the number of the last one that has ended.
	begun, ended int
}

// note notes an answer to a request that the agent sent under the hold; empty for none.
func (d *deletion) note(hold string, deleted bool) {
	d.known = d.known || deleted
	if hold == "" || hold == d.asked {
		return
	}
	d.asked = hold
	if deleted {
		d.seen = hold
	}
}

// begin begins a check, and returns its number.
func (d *deletion) begin() (number int) {
	d.begun++
	return d.begun
}

// end ends a check that was sent with an acquiring write of the hold. Only a deletion
// counts as an answer under the hold: the pod may be deleted before its first status.
func (d *deletion) end(number int, hold string, deleted bool) {
	d.ended = max(d.ended, number)
	if deleted {
		d.note(hold, true)
	}
}

// open reports whether the last check has not ended.
func (d *deletion) open() bool { return d.ended < d.begun }

// gone reports whether the API server has no such pod: somebody has deleted the pod by force.
// A proxy's page names no reason, and tells nothing about the pod.
func gone(err error) bool {
	status, ok := errors.AsType[*kube.StatusError](err)
	return ok && errors.Is(err, kube.ErrNotFound) && status.Reason == "NotFound"
}
