// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
)

// ErrDead is the error of a call by a process that has ended.
var ErrDead = errors.New("this process is dead")

// Process models an operating system's process that uses the API server. A fault can freeze or kill
// the process at any of its requests.
type Process struct {
	engine *Engine
	// Ctx ends with the process.
	Ctx    context.Context
	cancel context.CancelFunc
	// Dead reports that the process has ended.
	Dead   bool
	thawed chan struct{} // not nil while frozen
	// deferred has the events that arrived while the process was frozen.
	deferred []func()
}

// NewProcess starts a process, which ends with the world at the latest.
func (e *Engine) NewProcess() *Process {
	p := &Process{engine: e}
	p.Ctx, p.cancel = context.WithCancel(e.Ctx)
	return p
}

// Die ends the process: its goroutines can change nothing any more. The caller holds
// the mutex.
func (p *Process) Die() {
	p.Dead = true
	p.cancel()
	p.Thaw()
}

// Freeze suspends the process at its next call of [Process.Enter].
func (p *Process) Freeze() {
	if p.thawed == nil && !p.Dead {
		p.thawed = make(chan struct{})
	}
}

// Frozen reports whether the process is suspended.
func (p *Process) Frozen() bool { return p.thawed != nil }

// Thaw lets the process go on, and runs the events that arrived while the process was frozen.
func (p *Process) Thaw() {
	if p.thawed == nil {
		return
	}
	close(p.thawed)
	p.thawed = nil
	due := p.deferred
	p.deferred = nil
	for _, f := range due {
		p.WhenThawed(f)
	}
}

// WhenThawed runs f when the process thaws, or now if the process is not frozen. If the process
// is dead, WhenThawed does not run f.
func (p *Process) WhenThawed(f func()) {
	switch {
	case p.Dead:
	case p.thawed != nil:
		p.deferred = append(p.deferred, f)
	default:
		f()
	}
}

// Enter waits while the process is frozen, and locks the mutex. The caller unlocks the mutex by
// [Process.Leave]. For a dead process the method returns false, and the mutex is not locked.
func (p *Process) Enter() bool {
	for {
		p.engine.Lock()
		thawed := p.thawed
		switch {
		case p.Dead:
			p.engine.Unlock()
			return false
		case thawed == nil:
			return true
		}
		p.engine.Unlock()
		<-thawed
	}
}

// Leave unlocks the mutex after [Process.Enter].
func (p *Process) Leave() { p.engine.Unlock() }

// Await waits until the argument "ready" returns true and the process is not frozen. For a dead
// process the method returns false. Await calls "ready" with the mutex held: at first, and after
// each change that the argument "changed" signals.
func (p *Process) Await(changed *Signal, ready func() bool) bool {
	for p.Enter() {
		ok, next := ready(), changed.Next()
		p.Leave()
		if ok {
			return true
		}
		select {
		case <-next:
		case <-p.Ctx.Done():
		}
	}
	return false
}

// Signal wakes all goroutines that wait for a change. The caller of each method of Signal holds
// the engine's mutex.
type Signal struct{ given chan struct{} }

// NewSignal returns a signal on which no goroutine waits yet.
func NewSignal() Signal { return Signal{make(chan struct{})} }

// Next returns a channel, which the next call of Give closes.
func (s *Signal) Next() <-chan struct{} { return s.given }

// Give wakes the goroutines that wait.
func (s *Signal) Give() {
	close(s.given)
	s.given = make(chan struct{})
}
