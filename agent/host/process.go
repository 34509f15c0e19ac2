// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

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
