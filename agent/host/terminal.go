// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"

	"golang.org/x/sys/unix"
)

// Terminal is the terminal of the container, if this process leads the session that the
// terminal controls.
type Terminal struct {
	FD int // -1 means no terminal
}

// FindTerminal returns the terminal that controls this process's session, if a standard file is
// that terminal. If this process does not lead its session, FindTerminal finds no terminal.
func FindTerminal() Terminal {
	own, err := unix.Getsid(0)
	if err != nil || own != os.Getpid() {
		return Terminal{FD: -1}
	}
	for fd := range 3 {
		// If the terminal does not control this process's session, the kernel returns an error.
		if sid, err := unix.IoctlGetInt(fd, unix.TIOCGSID); err == nil && sid == own {
			return Terminal{FD: fd}
		}
	}
	return Terminal{FD: -1}
}

// Give gives the terminal up, so that the child can lead the session that the terminal
// controls. Then job control and keys work as in a container without a shim. The result is
// false if this process has no terminal. The kernel sends SIGHUP and SIGCONT to the foreground
// group, to which this process belongs.
func (t Terminal) Give() bool {
	return t.FD >= 0 && unix.IoctlSetInt(t.FD, unix.TIOCNOTTY, 0) == nil
}

// Take takes the terminal back, so that a person can interrupt a standby.
func (t Terminal) Take() {
	if t.FD >= 0 {
		_ = unix.IoctlSetInt(t.FD, unix.TIOCSCTTY, 0)
	}
}
