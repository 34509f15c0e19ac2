// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// deletion has the API server's answers about the pod's deletion.
//
// The kubelet stops the containers of a deleted pod by itself. But its stop signal is lost
// if the shim's process does not exist yet. An application that started after such a signal
// would run on until the grace is over. So a pod that knows of its deletion begins no hold.
// The agent gives back a hold that began just before the agent learned of the deletion. An
// older hold goes on.
//
// A controller may delete all pods of a workload at once, and the holder may end before a
// standby knows of its own deletion. So the agent checks for a deletion with each acquiring
// write, and grants nothing before the check has ended.
type deletion struct {
	// known reports that the pod is being deleted.
	known bool
	// asked is the last hold during which the API server told the agent whether the pod
	// is being deleted.
	asked string
	// seen is the hold whose first answer from the API server reported the deletion.
	seen string
	// begun counts the checks for a deletion. The field ended is the number of the latest
	// check that has ended.
	begun, ended int
}

// note notes the API server's answer to a request that the agent sent during the hold. The
// argument hold is empty if the request belongs to no hold.
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

// end ends a check that was sent with an acquiring write of the hold. If the pod is being
// deleted, the check counts as the first answer of the hold. Otherwise the answer to the
// hold's first status write counts as the first answer, because the pod may be deleted
// after the check.
func (d *deletion) end(number int, hold string, deleted bool) {
	d.ended = max(d.ended, number)
	if deleted {
		d.note(hold, true)
	}
}

// open reports whether the last check has not ended.
func (d *deletion) open() bool { return d.ended < d.begun }

// gone reports whether the API server no longer has the pod, because somebody deleted the
// pod by force. A proxy's 404 does not contain the status reason NotFound, so that answer
// tells nothing about the pod.
func gone(err error) bool {
	status, ok := errors.AsType[*kube.StatusError](err)
	return ok && errors.Is(err, kube.ErrNotFound) && status.Reason == "NotFound"
}
