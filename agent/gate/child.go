// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

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

// LookPath finds the executable as container runtimes do: in PATH, unless the
// name has a slash. Unlike os/exec it accepts what "." in PATH leads to,
// because they do.
func LookPath(name, path string) (string, error) {
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
