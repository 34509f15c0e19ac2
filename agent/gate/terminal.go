// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// terminal is the container's terminal, if it has one, while the shim leads the
// session that it controls.
type terminal struct {
	fd int // -1: none
}

func findTerminal() terminal {
	own, err := unix.Getsid(0)
	if err != nil || own != os.Getpid() {
		return terminal{fd: -1}
	}
	for fd := range 3 {
		// The session that the terminal controls: ours, or an error.
		if sid, err := unix.IoctlGetInt(fd, unix.TIOCGSID); err == nil && sid == own {
			return terminal{fd: fd}
		}
	}
	return terminal{fd: -1}
}

// giveTerminal gives the terminal up, so that the child can lead the session
// that it controls: job control and keys then work as they did for PID 1. The
// kernel says SIGHUP and SIGCONT to the foreground group, which is the shim.
func (s *shim) giveTerminal() bool {
	if s.tty.fd < 0 {
		return false
	}
	signal.Ignore(unix.SIGHUP, unix.SIGCONT)
	err := unix.IoctlSetInt(s.tty.fd, unix.TIOCNOTTY, 0)
	signal.Notify(s.signals, unix.SIGHUP, unix.SIGCONT)
	return err == nil
}

// take takes the terminal back, so that a person can interrupt a standby.
func (t terminal) take() {
	if t.fd >= 0 {
		_ = unix.IoctlSetInt(t.fd, unix.TIOCSCTTY, 0)
	}
}
