// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"time"
)

// Machine is the kernel beneath a Server ([Listen]), or the simulation's model of one.
type Machine struct {
	// BootID is the id of the boot from which Now counts.
	BootID string
	// Now returns the time since boot. In the simulation, Now blocks while the process is
	// frozen, so the server holds no mutex during the call.
	Now   func() time.Duration
	Shims Listener
	Notes Notes
}

// Listener is the socket to which shims connect.
type Listener interface {
	// Accept waits for the next connection, or for Close.
	Accept() (Conn, error)
	Close() error
}

// Conn is a connection to one shim, and carries whole messages.
type Conn interface {
	// Send sends a message without waiting for the shim.
	Send(message []byte) error
	// Receive returns the next message, which is valid until the next call. At the end of the
	// connection, Receive returns io.EOF.
	Receive() ([]byte, error)
	// Process returns the process that has connected. The server calls Process once for a
	// connection, after its first message.
	Process() (Process, error)
	Close() error
}

// Process is the process of a shim. The desk learns of the death of this process even without a
// connection.
type Process interface {
	// AwaitDeath returns nil once the process is dead. If the process was PID 1, all of
	// its PID namespace is dead by then. AwaitDeath returns an error if ctx ends first.
	AwaitDeath(ctx context.Context) error
	// Same reports whether the argument is the same process. The result is also true if the kernel
	// cannot compare the two processes (before Linux 6.9).
	Same(Process) bool
	Close() error
}

// Notes are small files in the pod, which outlive an agent process.
type Notes interface {
	// Read returns all notes by name. A note that cannot be read has the value nil.
	Read() (map[string][]byte, error)
	Write(name string, note []byte) error
	// Remove removes the note, if it exists.
	Remove(name string) error
}

// forgetful implements [Notes] for a pod whose children have no deadline ([Config.Unbounded]).
// forgetful keeps no note.
type forgetful struct{}

func (forgetful) Read() (map[string][]byte, error) { return nil, nil }
func (forgetful) Write(string, []byte) error       { return nil }
func (forgetful) Remove(string) error              { return nil }
