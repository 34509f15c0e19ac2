// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import "github.com/metaparticle-io/metaparticle/agent/gate"

// asides are the commands for whose answers RunAside waits, by the id of the order.
type asides map[string]awaited

// awaited is a command for whose answer RunAside waits.
type awaited struct {
	peer   *peer
	answer chan gate.Outcome // the buffer has room for one answer
}

// answered passes the outcome of a command to RunAside.
func (all asides) answered(p *peer, a *gate.Outcome) {
	if one, ok := all[a.ID]; ok && one.peer == p {
		delete(all, a.ID)
		one.answer <- *a
	}
}

// unanswered ends the waits for answers of a shim whose connection has ended.
func (all asides) unanswered(p *peer) {
	for id, one := range all {
		if one.peer == p {
			delete(all, id)
			close(one.answer)
		}
	}
}
