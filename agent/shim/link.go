// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// link sends the shim's state to the desk, and writes lines for people.
type link struct {
	machine Machine
	state   gate.State
	conn    Conn // nil without a connection
	// unsent reports that the last message was not sent.
	unsent bool
}

// tell sends the state. If the state cannot be sent now, the next beat or the next
// connection sends it.
func (l *link) tell() { l.send(gate.Message{State: &l.state}) }

// answer sends the outcome of a command that the agent ordered.
func (l *link) answer(r gate.Outcome) { l.send(gate.Message{Ran: &r}) }

func (l *link) send(m gate.Message) {
	l.unsent = true
	if l.conn == nil {
		return
	}
	if b, err := gate.Encode(m); err == nil {
		l.unsent = l.conn.Send(b) != nil
	}
}

// enter changes the phase, and sends the state.
func (l *link) enter(p gate.Phase) {
	l.state.Phase, l.state.Since = p, l.machine.Now()
	l.tell()
}

// trouble makes the agent write an Event about a failure.
func (l *link) trouble(reason, message string) {
	l.state.Trouble = gate.Trouble{Serial: l.state.Trouble.Serial + 1, Reason: reason, Message: message}
	l.tell()
}

// say writes a line for people into the container's log.
func (l *link) say(format string, args ...any) {
	l.machine.Say(fmt.Sprintf("metaparticle: "+format+"\n", args...))
}
