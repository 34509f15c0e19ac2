// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/host"
)

// reap takes every process that has ended, and tells whether none is left:
// neither child nor, since orphans become the shim's, any descendant. It is the
// only place that waits, so a process id that was not reaped here is still that
// process's.
func (s *shim) reap() (none bool) {
	for {
		pid, status, none := host.Reap()
		switch pid {
		case 0:
			return none
		case s.child:
			s.child, s.status = 0, status
		default:
			s.reapedAside(pid, status)
		}
	}
}

// killDescendants kills everything that descends from this process, once. An
// error means that something may not be killed from here, or not even seen.
func killDescendants() error {
	processes, err := host.OwnDescendants()
	if err != nil {
		return err
	}
	var denied error
	for _, p := range processes {
		// A process id could have passed to another process since it was read,
		// but only to one that started in this container in that instant, after
		// all the other numbers had been used.
		err := host.Signal(p.PID, unix.SIGKILL)
		if err != nil && !errors.Is(err, unix.ESRCH) && !p.Zombie {
			denied = fmt.Errorf("kill process %d: %w", p.PID, err)
		}
	}
	return denied
}
