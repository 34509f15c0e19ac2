// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"time"
)

// Machine is the kernel beneath a Server ([Listen]), or the simulation's model of one.
type Machine struct {
	// BootID names the boot that Now counts from.
	BootID string
	// Now returns the time since boot. The server holds no mutex while it calls
	// Now.
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

// Conn is a connection to one shim, which carries whole messages.
type Conn interface {
	// Send never waits for the shim.
	Send(message []byte) error
	// Receive returns the next message, valid until the next call. At the end of
	// the connection, Receive returns io.EOF.
	Receive() ([]byte, error)
	// Process returns the process that connected. The server calls Process once,
	// after the first message.
	Process() (Process, error)
	Close() error
}

// Process is the process of a shim. Its death can be seen without a connection.
type Process interface {
	// AwaitDeath returns nil once the process is dead. If the process was PID 1, all of
	// its PID namespace is dead by then. AwaitDeath returns an error if ctx ends first.
	AwaitDeath(ctx context.Context) error
	Close() error
}

// Notes are small files that outlive an agent process, but not the pod.
type Notes interface {
	// Read returns all notes by name. The value nil stands for a note that cannot be
	// read.
	Read() (map[string][]byte, error)
	Write(name string, note []byte) error
	// Remove does nothing if the note does not exist.
	Remove(name string) error
}

// forgetful are the Notes of a pod whose children have no deadline: nothing is kept.
type forgetful struct{}

func (forgetful) Read() (map[string][]byte, error) { return nil, nil }
func (forgetful) Write(string, []byte) error       { return nil }
func (forgetful) Remove(string) error              { return nil }
