// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process as /proc shows it.
type Process struct {
	PID, Parent int
	// Zombie reports that the process, or at least its first thread, has ended.
	Zombie bool
	// Stopped reports that a signal has stopped the process. A process that a debugger stopped
	// does not count, because the debugger may continue that process at any time.
	Stopped bool
}

// Reap reaps one process that has ended. If none has ended, the process id is 0. The result
// "none" reports that this process has no child process at all. No function of this process
// except Reap may wait for other processes.
func Reap() (pid int, status unix.WaitStatus, none bool) {
	for {
		// __WALL includes processes that send another signal than SIGCHLD at their end, because
		// their clone(2) requested that.
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, 0, errors.Is(err, unix.ECHILD)
		default:
			return pid, status, false
		}
	}
}

// KillAgain is the time between two rounds of [KillAll]. Each round reaches the processes that were forked
// since the round before.
const KillAgain = 10 * time.Millisecond

// KillAll sends SIGKILL once to each process of the list. An error means that the kernel does not let this
// process kill one of them.
func KillAll(list []Process, signal func(pid int, sig syscall.Signal) error) error {
	var denied error
	for _, p := range list {
		// The process id almost certainly still belongs to the listed process, because the
		// kernel uses all other ids before it reuses one.
		err := signal(p.PID, unix.SIGKILL)
		if err != nil && !errors.Is(err, unix.ESRCH) && !p.Zombie {
			denied = fmt.Errorf("kill process %d: %w", p.PID, err)
		}
	}
	return denied
}

// FindProcess returns the process with that process id, if there is one.
func FindProcess(pid int) (Process, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, false
	}
	return ParseStat(stat)
}

// OwnDescendants returns every process that descends from this one.
func OwnDescendants() ([]Process, error) {
	all, err := ReadProcesses()
	return Descendants(all, os.Getpid()), err
}

// ReadProcesses returns the processes in /proc, without those that end during the read.
func ReadProcesses() ([]Process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	var all []Process
	for _, name := range names {
		if name[0] < '1' || name[0] > '9' {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if p, ok := ParseStat(stat); ok {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read processes: %w", os.ErrNotExist)
	}
	return all, nil
}

// ParseStat reads a text of the form "pid (name) state parent …". The name may contain anything. If
// the text has another form, the result is false.
func ParseStat(stat []byte) (Process, bool) {
	open, end := bytes.IndexByte(stat, ' '), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Process{}, false
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 2 {
		return Process{}, false
	}
	pid, errPid := strconv.Atoi(string(stat[:open]))
	parent, errParent := strconv.Atoi(string(fields[1]))
	if errPid != nil || errParent != nil {
		return Process{}, false
	}
	state := fields[0][0]
	return Process{
		PID: pid, Parent: parent,
		Zombie: state == 'Z' || state == 'X', Stopped: state == 'T',
	}, true
}

// Descendants returns the children of root, the children of those, and so on. Parents come
// before their children.
func Descendants(all []Process, root int) []Process {
	byParent := map[int][]Process{}
	for _, p := range all {
		byParent[p.Parent] = append(byParent[p.Parent], p)
	}
	var found []Process
	for next := byParent[root]; len(next) > 0; {
		found = append(found, next...)
		var children []Process
		for _, p := range next {
			children = append(children, byParent[p.PID]...)
			// If process ids were reused while /proc was read, a process may be its own ancestor.
			// Without the deletion, the loop would then never end.
			delete(byParent, p.PID)
		}
		next = children
	}
	return found
}

// AwaitDeath returns nil once the pidfd's process is dead. AwaitDeath returns an error
// if ctx ends first, or if the pidfd cannot be watched.
func AwaitDeath(ctx context.Context, pidfd *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := pidfd.SyscallConn()
	if err == nil {
		err = raw.Read(readable)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readable reports to the Go runtime's poller whether a pidfd's process is dead. The poller calls
// readable once more when the process may have died.
func readable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

// SameProcess reports whether both pidfds are of one process. Since Linux 6.9 the pidfds of a process
// have an inode of their own. On an older kernel all pidfds have the same inode, so the result is
// true. The result is also true if the inodes cannot be read.
func SameProcess(a, b *os.File) bool {
	of, errOf := a.Stat()
	and, errAnd := b.Stat()
	return errOf != nil || errAnd != nil || os.SameFile(of, and)
}

// IsPidfd reports whether the file is a pidfd.
func IsPidfd(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var link string
	errControl := raw.Control(func(fd uintptr) {
		link, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	})
	// The link of a pidfd is anon_inode:[pidfd], or pidfd:[inode] since Linux 6.9.
	return errors.Join(err, errControl) == nil && strings.Contains(link, "pidfd") && !strings.HasPrefix(link, "/")
}

// Status has the user of a process, and how the process treats signals, as read from /proc.
type Status struct {
	// UID is the real user id.
	UID int
	// blocked, ignored and caught have one bit for each signal.
	blocked, ignored, caught uint64
}

// Expects reports whether the process blocks, ignores or catches the signal.
func (s Status) Expects(sig syscall.Signal) bool {
	return (s.blocked|s.ignored|s.caught)&(1<<(sig-1)) != 0
}

// ReadStatus reads the status of a process.
func ReadStatus(pid int) (Status, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return Status{}, fmt.Errorf("read the status of process %d: %w", pid, err)
	}
	return parseStatus(string(text))
}

// parseStatus reads lines of "Name:\tvalue". The kernel escapes a newline in the name of the
// process, so the name cannot add a line.
func parseStatus(text string) (s Status, err error) {
	s.UID = -1
	masks := map[string]*uint64{"SigBlk": &s.blocked, "SigIgn": &s.ignored, "SigCgt": &s.caught}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		if mask := masks[name]; mask != nil {
			if *mask, err = strconv.ParseUint(value, 16, 64); err != nil {
				return s, fmt.Errorf("read %s: %w", name, err)
			}
			delete(masks, name)
		}
		if name == "Uid" {
			own, _, _ := strings.Cut(value, "\t")
			if s.UID, err = strconv.Atoi(own); err != nil {
				return s, fmt.Errorf("read %s: %w", name, err)
			}
		}
	}
	if s.UID < 0 || len(masks) > 0 {
		return s, fmt.Errorf("read a status: %w", os.ErrInvalid)
	}
	return s, nil
}

// LookPath finds the executable as container runtimes do: in PATH, unless the name has
// a slash. Unlike os/exec, LookPath also accepts a file that it finds through "." in
// PATH.
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
