// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/api"
)

// Machine has the functions of the machine that the gate "pod" needs. The simulation has
// another Machine, because the kernel cannot follow a simulated clock.
type Machine interface {
	Volume
	// Now returns the instant of CLOCK_BOOTTIME.
	Now() time.Duration
	BootID() (string, error)
	// Lock takes a flock, and waits while another agent process has that flock. The kernel releases
	// the flock at the end of the process.
	Lock(ctx context.Context, log *slog.Logger) (io.Closer, error)
	Alarm() (Alarm, error)
	// Listen opens the socket to which "agent wait" connects.
	Listen() (net.Listener, error)
}

// Alarm rings at an instant of CLOCK_BOOTTIME.
type Alarm interface {
	// Run sends a value to the channel that Rings returns, each time that the alarm rings.
	// Close ends Run.
	Run()
	// Set makes the alarm ring at the given instant. Earlier settings no longer count.
	Set(at time.Duration)
	Rings() <-chan struct{}
	Close() error
}

// Volume stores notes, which outlive every container of the pod.
type Volume interface {
	// Read returns fs.ErrNotExist for a missing note.
	Read(name string) ([]byte, error)
	// Write replaces the note in one step: a reader finds the old text or the new one.
	Write(name string, text []byte) error
	Rename(from, to string) error
}

// Dir is a directory that stores the notes. The notes are not synced to disk. If the kernel
// crashes before it has written a note, the processes that the note describes are dead, too.
type Dir string

// Read implements Volume.
func (d Dir) Read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

// Write implements Volume.
func (d Dir) Write(name string, text []byte) error {
	return linux.Replace(d.path(name), text, 0o600)
}

// Rename implements Volume.
func (d Dir) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// kernel is the Machine of a real pod: the Linux kernel, and a directory for the notes.
type kernel struct{ Dir }

func (kernel) Now() time.Duration { return linux.Now() }

func (kernel) BootID() (string, error) { return linux.BootID() }

func (k kernel) Lock(ctx context.Context, log *slog.Logger) (io.Closer, error) {
	return linux.Lock(ctx, k.path(gate.LockName), log)
}

func (kernel) Alarm() (Alarm, error) {
	a, err := linux.NewAlarm()
	if err != nil {
		return nil, fmt.Errorf("open alarm: %w", err)
	}
	return timer{a}, nil
}

func (k kernel) Listen() (net.Listener, error) {
	return linux.Socket("unix", k.path(api.WaitSocketName), 0o755)
}

type timer struct{ *linux.Alarm }

func (t timer) Rings() <-chan struct{} { return t.C }
