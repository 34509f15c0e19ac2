// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import "github.com/metaparticle-io/metaparticle/agent/gate"

// runs are the commands for whose answers RunAside waits, by the id of the order.
type runs map[string]run

// run is a command for whose answer RunAside waits.
type run struct {
	peer   *peer
	answer chan gate.Outcome // the buffer has room for one answer
}

// answered passes the outcome of a command to RunAside.
func (r runs) answered(p *peer, a *gate.Outcome) {
	if run, ok := r[a.ID]; ok && run.peer == p {
		delete(r, a.ID)
		run.answer <- *a
	}
}

// unanswered ends the waits for answers of a shim whose connection has ended.
func (r runs) unanswered(p *peer) {
	for id, run := range r {
		if run.peer == p {
			delete(r, id)
			close(run.answer)
		}
	}
}
