// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signal sends a signal to a process, or to a process group if pid is negative. An entrypoint
// may have changed the user of the process (gosu, su-exec, setpriv), in a container without the
// capability KILL. Such a container has the capability SETUID, because the entrypoint needs SETUID.
// So if the kernel refuses the signal, Signal sends the signal as the user of the process.
func Signal(pid int, sig syscall.Signal) error {
	err := unix.Kill(pid, sig)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	status, errRead := ReadStatus(max(pid, -pid))
	if errRead != nil {
		return err
	}
	if errAs := signalAs(status.UID, pid, sig); !errors.Is(errAs, unix.EPERM) {
		return errAs
	}
	return err
}

// signalAs sends a signal from a thread that temporarily has the given user. In Linux each
// thread has a user of its own. A separate process would need a fork, which may hang or be
// refused. The real and the saved user stay unchanged. So the given user gains no right over the
// thread, and the thread can return to its own user.
func signalAs(uid, pid int, sig syscall.Signal) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		own := unix.Geteuid()
		dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		err := setThreadUser(uid)
		if err == nil {
			err = unix.Kill(pid, sig)
			if errBack := setThreadUser(own); errBack != nil {
				// The thread still has the given user, so this thread must run no other code. The
				// thread ends with this goroutine, because the goroutine stays locked to it.
				done <- errors.Join(err, errBack)
				return
			}
			if dumpable == 1 {
				// The kernel clears this flag when the user of a thread changes. Without the
				// flag, the application cannot write to /proc/1/fd/1.
				_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
			}
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// setThreadUser sets the effective user of this thread alone. The function syscall.Setresuid
// would set the user of every thread.
func setThreadUser(uid int) error {
	const unchanged = ^uintptr(0)
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged)
	if errno != 0 {
		return errno
	}
	return nil
}

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
