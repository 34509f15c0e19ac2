// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// role is what a process of a pod is. The nodes are namespaces of this
// machine, so the tests, from outside of all of them, see every process and
// may signal it.
type role string

const (
	// child is the application, by its binary's name.
	child role = "app"
	// shim is the first process of the application's container.
	shim role = "shim"
	// agent is the sidecar.
	agent role = "agent"
	// passing is any other of the agent's binary: a hook, a probe, or what a shim
	// has forked and what is not the child yet, but has the shim's command line.
	passing role = "passing"
	// runtimeShim is containerd's process above the pod.
	runtimeShim role = "containerd-shim"
)

type process struct {
	pid, parent int
	// started tells it from a later process of the same number.
	started string
	role    role
}

// processes are those of a pod, the children in the order of their start.
func processes(pod *corev1.Pod) []process {
	var found []process
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(groups), "pod"+string(pod.UID)) {
			continue
		}
		if p, ok := read(dir); ok && p.role != passing {
			found = append(found, p)
		}
	}
	for _, p := range found {
		if p.role == shim || p.role == agent {
			known := func(other process) bool { return other.pid == p.parent }
			if above, ok := read(fmt.Sprintf("/proc/%d", p.parent)); ok && above.role == runtimeShim &&
				!slices.ContainsFunc(found, known) {
				found = append(found, above)
			}
		}
	}
	return found
}

func read(dir string) (process, bool) {
	pid, err := strconv.Atoi(filepath.Base(dir))
	if err != nil {
		return process{}, false
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(cmdline) == 0 {
		return process{}, false
	}
	parent, started, ok := born(dir)
	if !ok {
		return process{}, false
	}
	p := process{pid: pid, parent: parent, started: started, role: roleOf(strings.Split(string(cmdline), "\x00"))}
	if p.role == shim && !first(dir) {
		p.role = passing
	}
	return p, true
}

// born is under whom and when a process began.
func born(dir string) (parent int, started string, ok bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, "", false
	}
	// The name of a program may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[19], err == nil
}

// first tells whether a process is the first of its container.
func first(dir string) bool {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return strings.HasSuffix(strings.TrimSpace(numbers), "\t1")
		}
	}
	return false
}

func roleOf(args []string) role {
	name := filepath.Base(args[0])
	switch {
	case name == "agent" && slices.Contains(args, "exec"):
		return shim
	case name == "agent" && slices.Contains(args, "run"):
		return agent
	case name == "agent" && slices.Contains(args, "wait"):
		return waiter
	case name == "agent":
		return passing
	case strings.HasPrefix(name, "containerd-shim"):
		return runtimeShim
	}
	return role(name)
}

// find is a pod's process in a role, or nil.
func find(pod *corev1.Pod, r role) *process {
	for _, p := range processes(pod) {
		if p.role == r {
			return &p
		}
	}
	return nil
}

// signal sends a signal to a pod's process, if it is still there.
func (s *space) signal(pod *corev1.Pod, r role, signal unix.Signal) bool {
	s.Helper()
	p := find(pod, r)
	if p == nil {
		return false
	}
	return p.signal(signal)
}

// signal sends a signal to a process, if it is still there.
func (p *process) signal(signal unix.Signal) bool {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// The number may have become another process's before it was opened. Nothing
	// else of it stays: amid an exec it has no command line, and who outlives its
	// parent gets another.
	if _, started, ok := born(fmt.Sprintf("/proc/%d", p.pid)); !ok || started != p.started {
		return false
	}
	return unix.PidfdSendSignal(fd, signal, nil, 0) == nil
}

// must signal is signal where the process has to be there.
func (s *space) mustSignal(pod *corev1.Pod, r role, signal unix.Signal) {
	s.Helper()
	require.NotNil(s, pod)
	require.True(s, s.signal(pod, r, signal), "no %s in %s", r, pod.Name)
}

// freeze stops a process until the test's end, or until the answer is called.
func (s *space) freeze(pod *corev1.Pod, r role) (thaw func()) {
	s.Helper()
	p := find(pod, r)
	require.NotNil(s, p, "no %s in %s", r, pod.Name)
	fd, err := unix.PidfdOpen(p.pid, 0)
	require.NoError(s, err)
	require.NoError(s, unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0))
	thawed := false
	thaw = func() {
		if !thawed {
			thawed = true
			if err := unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0); err != unix.ESRCH {
				assert.NoError(s, err)
			}
			_ = unix.Close(fd)
		}
	}
	s.Cleanup(thaw)
	return thaw
}
