// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// reap takes every process that has ended, and tells whether none is left:
// neither child nor, since orphans become the shim's, any descendant. It is the
// only place that waits, so a process id that was not reaped here is still that
// process's.
func (s *shim) reap() (none bool) {
	for {
		var status unix.WaitStatus
		// __WALL: also those that a clone with another signal made.
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD):
			return true
		case err != nil || pid == 0:
			return false
		case pid == s.child:
			s.child, s.status = 0, status
		default:
			s.reapedAside(pid, status)
		}
	}
}

// killDescendants kills everything that descends from this process, once. An
// error means that something may not be killed from here, or not even seen.
func killDescendants() error {
	processes, err := readProcesses()
	if err != nil {
		return err
	}
	var denied error
	for _, p := range descendants(processes, os.Getpid()) {
		// A process id could have passed to another process since it was read,
		// but only to one that started in this container in that instant, after
		// all the other numbers had been used.
		err := sendSignal(p.pid, unix.SIGKILL)
		if err != nil && !errors.Is(err, unix.ESRCH) && !p.zombie {
			denied = fmt.Errorf("kill process %d: %w", p.pid, err)
		}
	}
	return denied
}

type process struct {
	pid, parent int
	// zombie: ended, or at least its first thread has.
	zombie bool
	// stopped: by a signal. What a debugger stops goes on whenever that likes.
	stopped bool
}

// readProcesses reads what /proc shows. What ends meanwhile is left out.
func readProcesses() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	var all []process
	for _, name := range names {
		if name[0] < '1' || name[0] > '9' {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if p, ok := parseStat(stat); ok {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read processes: %w", os.ErrNotExist)
	}
	return all, nil
}

// parseStat reads "pid (name) state parent …"; the name may contain anything.
func parseStat(stat []byte) (process, bool) {
	open, end := bytes.IndexByte(stat, ' '), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 2 {
		return process{}, false
	}
	pid, errPid := strconv.Atoi(string(stat[:open]))
	parent, errParent := strconv.Atoi(string(fields[1]))
	if errPid != nil || errParent != nil {
		return process{}, false
	}
	state := fields[0][0]
	return process{
		pid: pid, parent: parent,
		zombie: state == 'Z' || state == 'X', stopped: state == 'T',
	}, true
}

// descendants are the children of root, their children, and so on.
func descendants(all []process, root int) []process {
	byParent := map[int][]process{}
	for _, p := range all {
		byParent[p.parent] = append(byParent[p.parent], p)
	}
	var found []process
	for next := byParent[root]; len(next) > 0; {
		found = append(found, next...)
		var children []process
		for _, p := range next {
			children = append(children, byParent[p.pid]...)
			delete(byParent, p.pid) // what is read while it changes could go in circles
		}
		next = children
	}
	return found
}
