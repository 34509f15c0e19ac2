// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spawn starts the child as the container runtime would have: with the shim's
// own standard files, directory, identity and limits (syscall.ForkExec gives it
// back the limit on open files that the Go runtime raised for itself), in a
// session of its own, as PID 1 was.
func (s *shim) spawn() (pid int, err error) {
	attr := &syscall.ProcAttr{
		Env:   s.environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if s.giveTerminal() {
		attr.Sys.Setctty, attr.Sys.Ctty = true, s.tty.fd
	}
	defer s.ignoreAsFound()()
	pid, err = fork(s.path, s.cfg.Command, attr)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", s.cfg.Command[0], err)
	}
	return pid, nil
}

// forks holds off a second fork while one may hang.
var forks sync.Mutex

// fork is syscall.ForkExec in a program that must go on if that hangs, as it does
// on a volume that does not answer. The kernel then keeps the thread, and with it
// one of the Go scheduler's processors: the shim needs two, and no garbage
// collection meanwhile, which would wait for both.
func fork(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	forks.Lock()
	defer forks.Unlock()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	return syscall.ForkExec(path, argv, attr)
}

// trimEvery is how often memory is given back: a few milliseconds of work that the
// Go runtime, which thinks of larger programs, does not get to by itself.
const trimEvery = time.Minute

// Trim gives back what busy moments have left, until ctx ends: most of an agent's
// and a shim's life is waiting, next to somebody else's application. A collection
// would wait for a fork that hangs, and everybody for the collection.
func Trim(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if forks.TryLock() {
			// Each collection halves the stacks that have grown.
			for range 3 {
				debug.FreeOSMemory()
			}
			forks.Unlock()
		}
	}
}

// ignoreAsFound ignores what was ignored when the shim started (nohup), while
// the child is forked, since it inherits that. It returns the undo.
func (s *shim) ignoreAsFound() (undo func()) {
	for _, sig := range s.ignored {
		signal.Ignore(sig)
	}
	return func() {
		for _, sig := range s.ignored {
			signal.Notify(s.signals, sig)
		}
	}
}

// environ is the shim's own environment with the grant's variables instead of
// any of the same name (of two, most programs see the first).
func (s *shim) environ() []string {
	if s.cfg.Env == nil {
		return os.Environ()
	}
	return override(os.Environ(), s.cfg.Env(s.grant.Slots))
}

// override puts ours before the environment, instead of any of the same name.
func override(environ, ours []string) []string {
	env := ours
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if !has(ours, name) {
			env = append(env, v)
		}
	}
	return env
}

func has(env []string, name string) bool {
	for _, v := range env {
		if n, _, _ := strings.Cut(v, "="); n == name {
			return true
		}
	}
	return false
}

// lookPath finds the executable as container runtimes do: in PATH, unless the
// name has a slash. Unlike os/exec it accepts what "." in PATH leads to,
// because they do.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", fmt.Errorf("start %s: %w", name, err)
		}
		return name, nil
	}
	found := fmt.Errorf("start %s: not found in PATH: %w", name, fs.ErrNotExist)
	if name == "" {
		return "", found
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if dir == "" || dir == "." {
			file = "./" + name
		}
		switch err := executable(file); {
		case err == nil:
			return file, nil
		case errors.Is(err, fs.ErrPermission):
			found = fmt.Errorf("start %s: %w", file, err)
		}
	}
	return "", found
}

func executable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return errors.Unwrap(err)
	}
	if info.IsDir() {
		return unix.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

// startCode is the exit code for a child that could not be started.
func startCode(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return ExitNotFound
	}
	return ExitNotExecutable
}

// exitCode is the child's own; 128+n for one that died of signal n.
func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

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
