// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/linux"
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

// Process is the process of a shim. The server learns of the death of this process even without a
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

// socket implements [Listener] by a Unix socket.
type socket struct {
	*net.UnixListener
	oldKernel bool
}

// firstWithin bounds the time until the first message of a connection. A shim sends its first
// message as soon as it has connected. A frozen shim that comes too late connects again.
const firstWithin = 2 * time.Second

func (s socket) Accept() (Conn, error) {
	u, err := s.AcceptUnix()
	if err != nil {
		return nil, err
	}
	if err := u.SetReadDeadline(time.Now().Add(firstWithin)); err != nil {
		u.Close()
		return nil, err
	}
	c, err := linux.NewConn(u, MaxMessage)
	if err != nil {
		u.Close()
		return nil, err
	}
	return &socketConn{Conn: c, oldKernel: s.oldKernel}, nil
}

// socketConn implements [Conn] by a connection of a Unix socket.
type socketConn struct {
	*linux.Conn
	oldKernel bool
	passed    *os.File // the pidfd that came with the first message
	begun     bool
}

func (c *socketConn) Send(message []byte) error { return c.Conn.Send(message) }

func (c *socketConn) Receive() ([]byte, error) {
	b, file, err := c.Conn.Receive()
	switch {
	case file == nil:
	case c.begun:
		file.Close()
	default:
		c.passed = file
	}
	if !c.begun {
		c.begun = true
		err = errors.Join(err, c.SetReadDeadline(time.Time{}))
	}
	return b, err
}

// Process returns a pidfd of the shim's process. From Linux 6.5 on, the kernel itself returns a
// pidfd of the process that connected. On an older kernel, Process returns the pidfd that the
// shim sent. The agent cannot check whose pidfd the shim sent, because the shim's process has no
// process id in the agent's PID namespace.
func (c *socketConn) Process() (Process, error) {
	if !c.oldKernel {
		if peer, err := c.PeerPidfd(); err == nil {
			if c.passed != nil {
				c.passed.Close()
			}
			return pidfd{peer}, nil
		}
	}
	if c.passed == nil {
		return nil, fmt.Errorf("%w: no pidfd", ErrMessage)
	}
	if !linux.IsPidfd(c.passed) {
		c.passed.Close()
		return nil, fmt.Errorf("%w: not a pidfd", ErrMessage)
	}
	return pidfd{c.passed}, nil
}

// pidfd implements [Process] by a pidfd of the kernel.
type pidfd struct{ *os.File }

func (p pidfd) AwaitDeath(ctx context.Context) error { return linux.AwaitDeath(ctx, p.File) }

// Same implements [Process] by the inodes of the pidfds.
func (p pidfd) Same(other Process) bool {
	o, ok := other.(pidfd)
	return !ok || linux.SameProcess(p.File, o.File)
}

// directory implements [Notes]: each note is a file in the directory.
type directory string

func (d directory) Read() (map[string][]byte, error) {
	if err := os.MkdirAll(string(d), 0o777); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	notes := map[string][]byte{}
	for _, f := range files {
		// A note is named after its container, and no container's name ends with this suffix.
		if !strings.HasSuffix(f.Name(), linux.Unfinished) && !f.IsDir() {
			notes[f.Name()], _ = os.ReadFile(filepath.Join(string(d), f.Name()))
		}
	}
	return notes, nil
}

func (d directory) Write(name string, note []byte) error {
	return linux.Replace(filepath.Join(string(d), name), note, 0o644)
}

func (d directory) Remove(name string) error {
	if err := os.Remove(filepath.Join(string(d), name)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
