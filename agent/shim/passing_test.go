// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
)

// lateHandlers is a machine whose child sets all its handlers only after some checks by the shim.
// The field "checks" has the number of those checks that are left.
type lateHandlers struct {
	Machine
	now    time.Duration
	checks int
	sent   []syscall.Signal
}

func (m *lateHandlers) Now() time.Duration { return m.now }

func (m *lateHandlers) Expects(int, syscall.Signal) bool {
	m.checks--
	return m.checks < 0
}

func (m *lateHandlers) Signal(_ int, sig syscall.Signal) error {
	m.sent = append(m.sent, sig)
	return nil
}

// The shim checks again and again whether its child has set the signal handlers. The child may set
// them between any two of these checks.
func TestChildGetsDelayedSignalsInTheirOriginalOrder(t *testing.T) {
	for checks := range 8 {
		m := &lateHandlers{checks: checks}
		p := passing{machine: m, child: &child{pid: 7}}
		for _, sig := range []syscall.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM} {
			p.give(sig)
			m.now += time.Millisecond
		}
		for range 4 {
			m.now += lookMost
			p.giveEarly()
		}
		assert.Equal(t, []syscall.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM}, m.sent, "handlers after %d checks", checks)
		assert.Empty(t, p.early)
	}
}

// The Go runtime receives signals in several threads, so it may deliver a stop signal before a
// signal that came earlier.
func TestChildGetsDelayedStopSignalAfterOtherSignals(t *testing.T) {
	for _, stop := range []syscall.Signal{unix.SIGTERM, unix.SIGQUIT} {
		for before := range 3 {
			for checks := range 4 {
				m := &lateHandlers{checks: 100}
				p := passing{machine: m, child: &child{pid: 7}, stopSignal: unix.SIGQUIT}
				for _, sig := range slices.Insert([]syscall.Signal{unix.SIGUSR1, unix.SIGUSR2}, before, stop) {
					p.give(sig)
				}
				m.checks = checks
				for range 2 {
					m.now += lookMost
					p.giveEarly()
				}
				assert.Equal(t, []syscall.Signal{unix.SIGUSR1, unix.SIGUSR2, stop}, m.sent, "%v after %d others", stop, before)
			}
		}
	}
}
