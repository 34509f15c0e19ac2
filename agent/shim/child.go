// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/host"
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
		attr.Sys.Setctty, attr.Sys.Ctty = true, s.tty.FD
	}
	defer s.ignoreAsFound()()
	pid, err = host.Fork(s.path, s.cfg.Command, attr)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", s.cfg.Command[0], err)
	}
	return pid, nil
}

// giveTerminal gives the terminal up, if the shim has one. The kernel's signals on that
// are not for the child.
func (s *shim) giveTerminal() bool {
	if s.tty.FD < 0 {
		return false
	}
	signal.Ignore(unix.SIGHUP, unix.SIGCONT)
	defer signal.Notify(s.signals, unix.SIGHUP, unix.SIGCONT)
	return s.tty.Give()
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
