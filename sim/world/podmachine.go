// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// volume has the notes of a pod. These notes survive the pod's containers and a boot of the
// node. The callers of the methods hold the world's mutex.
type volume map[string][]byte

// Read implements podgate.Volume.
func (v volume) Read(name string) ([]byte, error) {
	text, ok := v[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(text), nil
}

// Write implements podgate.Volume.
func (v volume) Write(name string, text []byte) error {
	v[name] = slices.Clone(text)
	return nil
}

// Rename implements podgate.Volume.
func (v volume) Rename(from, to string) error {
	text, ok := v[from]
	if !ok {
		return fs.ErrNotExist
	}
	v[to] = text
	delete(v, from)
	return nil
}

// agentMachine is the modelled kernel of an agent process in a pod without shims. A frozen process
// waits in each method, and a dead process changes nothing.
type agentMachine struct{ a *AgentProcess }

// inside runs f with the mutex held. For a dead process the method returns engine.ErrDead.
func (m agentMachine) inside(f func() error) error {
	if !m.a.Enter() {
		return engine.ErrDead
	}
	defer m.a.Leave()
	return f()
}

// Read implements podgate.Volume.
func (m agentMachine) Read(name string) (text []byte, err error) {
	err = m.inside(func() error { text, err = m.a.Pod.volume.Read(name); return err })
	return text, err
}

// Write implements podgate.Volume.
func (m agentMachine) Write(name string, text []byte) error {
	return m.inside(func() error {
		if m.a.Pod.Full {
			return syscall.ENOSPC
		}
		return m.a.Pod.volume.Write(name, text)
	})
}

// Rename implements podgate.Volume.
func (m agentMachine) Rename(from, to string) error {
	return m.inside(func() error { return m.a.Pod.volume.Rename(from, to) })
}

// Now implements podgate.Machine. The gate can read the clock while the agent's loop is blocked.
// Now waits while the process is frozen. Even for a dead process Now returns the node's time.
func (m agentMachine) Now() (now time.Duration) {
	if m.inside(func() error { now = m.a.Pod.Node.Now(); return nil }) != nil {
		m.a.Pod.w.Do(func() { now = m.a.Pod.Node.Now() })
	}
	return now
}

// BootID implements podgate.Machine.
func (m agentMachine) BootID() (string, error) { return m.a.Pod.Node.boot, nil }

// Lock implements podgate.Machine, and takes no flock: the simulated process runs the agent only
// once the process has the pod's flock.
func (m agentMachine) Lock(context.Context, *slog.Logger) (io.Closer, error) {
	return io.NopCloser(nil), nil
}

// Alarm implements podgate.Machine.
func (m agentMachine) Alarm() (podgate.Alarm, error) {
	return &ringing{machine: m, rings: make(chan struct{}, 1)}, nil
}

// Listen implements podgate.Machine.
func (m agentMachine) Listen() (l net.Listener, err error) {
	err = m.inside(func() error {
		m.a.Pod.sockets.listening = newWaitSocket(m.a.Process, m.a.Pod)
		l = m.a.Pod.sockets.listening
		return nil
	})
	return l, err
}

// ringing is an alarm of the node's clock. Each call of Set replaces the earlier instant.
type ringing struct {
	machine agentMachine
	rings   chan struct{}
	set     int
}

// Run implements podgate.Alarm. The method is empty, because the world rings the alarm.
func (r *ringing) Run() {}

// Rings implements podgate.Alarm.
func (r *ringing) Rings() <-chan struct{} { return r.rings }

// Set implements podgate.Alarm.
func (r *ringing) Set(at time.Duration) {
	a := r.machine.a
	_ = r.machine.inside(func() error {
		r.set++
		set := r.set
		a.Pod.Node.Ring(at, func() {
			a.Process.WhenThawed(func() {
				if r.set != set {
					return
				}
				select {
				case r.rings <- struct{}{}:
				default:
				}
			})
		})
		return nil
	})
}

// Close implements podgate.Alarm.
func (r *ringing) Close() error {
	return r.machine.inside(func() error { r.set++; return nil })
}
