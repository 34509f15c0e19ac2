// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import "context"

// process is an operating system's process that uses the API server. A fault can freeze
// or kill the process at any of its requests.
type process struct {
	engine *engine
	ctx    context.Context
	cancel context.CancelFunc
	dead   bool
	thawed chan struct{} // not nil while frozen
	// deferred has the events that arrived while the process was frozen.
	deferred []func()
}

// newProcess starts a process, which ends with the world at the latest.
func (e *engine) newProcess() *process {
	p := &process{engine: e}
	p.ctx, p.cancel = context.WithCancel(e.ctx)
	return p
}

// die ends the process: its goroutines can change nothing any more. The caller holds
// the mutex.
func (p *process) die() {
	p.dead = true
	p.cancel()
	p.thaw()
}

func (p *process) freeze() {
	if p.thawed == nil && !p.dead {
		p.thawed = make(chan struct{})
	}
}

func (p *process) thaw() {
	if p.thawed == nil {
		return
	}
	close(p.thawed)
	p.thawed = nil
	due := p.deferred
	p.deferred = nil
	for _, f := range due {
		p.whenThawed(f)
	}
}

// whenThawed runs f now, or as soon as the process is no longer frozen.
func (p *process) whenThawed(f func()) {
	switch {
	case p.dead:
	case p.thawed != nil:
		p.deferred = append(p.deferred, f)
	default:
		f()
	}
}

// enter waits while the process is frozen, and locks the mutex. The caller unlocks the mutex by
// [process.leave]. For a dead process the method returns false, and the mutex is not locked.
func (p *process) enter() bool {
	for {
		p.engine.lock()
		thawed := p.thawed
		switch {
		case p.dead:
			p.engine.unlock()
			return false
		case thawed == nil:
			return true
		}
		p.engine.unlock()
		<-thawed
	}
}

// leave unlocks the mutex after [process.enter].
func (p *process) leave() { p.engine.unlock() }

// await waits until the argument "ready" returns true and the process is not frozen. For a dead
// process the method returns false. The argument "ready" is called with the mutex held.
func (p *process) await(changed *signal, ready func() bool) bool {
	for p.enter() {
		ok, next := ready(), changed.next()
		p.leave()
		if ok {
			return true
		}
		select {
		case <-next:
		case <-p.ctx.Done():
		}
	}
	return false
}

// signal wakes all goroutines that wait for a change. The caller of its methods holds the
// mutex.
type signal struct{ given chan struct{} }

func newSignal() signal { return signal{make(chan struct{})} }

// next returns a channel that the next change closes.
func (s *signal) next() <-chan struct{} { return s.given }

// give wakes the goroutines that wait.
func (s *signal) give() {
	close(s.given)
	s.given = make(chan struct{})
}
