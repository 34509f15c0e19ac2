// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package process

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

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// Waiter is the init container of the gate "pod".
const Waiter Role = "waiter"

// Role is what a process of a pod is. The nodes are namespaces of this
// machine, so the tests, from outside of all of them, see every process and
// may signal it.
type Role string

const (
	// Child is the application, by its binary's name.
	Child Role = "app"
	// Shim is the first process of the application's container.
	Shim Role = "shim"
	// Agent is the sidecar.
	Agent Role = "agent"
	// passing is any other of the agent's binary: a hook, a probe, or what a shim
	// has forked and what is not the child yet, but has the shim's command line.
	passing Role = "passing"
	// RuntimeShim is containerd's process above the pod.
	RuntimeShim Role = "containerd-shim"
)

type Process struct {
	PID, parent int
	// started tells it from a later process of the same number.
	started string
	Role    Role
}

// Of are those of a pod, the children in the order of their start.
func Of(pod *corev1.Pod) []Process {
	var found []Process
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(groups), "pod"+string(pod.UID)) {
			continue
		}
		if p, ok := read(dir); ok && p.Role != passing {
			found = append(found, p)
		}
	}
	for _, p := range found {
		if p.Role == Shim || p.Role == Agent {
			known := func(other Process) bool { return other.PID == p.parent }
			if above, ok := read(fmt.Sprintf("/proc/%d", p.parent)); ok && above.Role == RuntimeShim &&
				!slices.ContainsFunc(found, known) {
				found = append(found, above)
			}
		}
	}
	return found
}

func read(dir string) (Process, bool) {
	pid, err := strconv.Atoi(filepath.Base(dir))
	if err != nil {
		return Process{}, false
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(cmdline) == 0 {
		return Process{}, false
	}
	parent, started, ok := born(dir)
	if !ok {
		return Process{}, false
	}
	p := Process{PID: pid, parent: parent, started: started, Role: roleOf(strings.Split(string(cmdline), "\x00"))}
	if p.Role == Shim && !first(dir) {
		p.Role = passing
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

func roleOf(args []string) Role {
	name := filepath.Base(args[0])
	switch {
	case name == "agent" && slices.Contains(args, "exec"):
		return Shim
	case name == "agent" && slices.Contains(args, "run"):
		return Agent
	case name == "agent" && slices.Contains(args, "wait"):
		return Waiter
	case name == "agent":
		return passing
	case strings.HasPrefix(name, "containerd-shim"):
		return RuntimeShim
	}
	return Role(name)
}

// Find is a pod's process in a role, or nil.
func Find(pod *corev1.Pod, r Role) *Process {
	for _, p := range Of(pod) {
		if p.Role == r {
			return &p
		}
	}
	return nil
}

// Signal sends a signal to a pod's process, if it is still there.
func Signal(s *space.Space, pod *corev1.Pod, r Role, signal unix.Signal) bool {
	s.Helper()
	p := Find(pod, r)
	if p == nil {
		return false
	}
	return p.Signal(signal)
}

// Signal sends a signal to a process, if it is still there.
func (p *Process) Signal(signal unix.Signal) bool {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// The number may have become another process's before it was opened. Nothing
	// else of it stays: amid an exec it has no command line, and who outlives its
	// parent gets another.
	if _, started, ok := born(fmt.Sprintf("/proc/%d", p.PID)); !ok || started != p.started {
		return false
	}
	return unix.PidfdSendSignal(fd, signal, nil, 0) == nil
}

// must signal is signal where the process has to be there.
func MustSignal(s *space.Space, pod *corev1.Pod, r Role, signal unix.Signal) {
	s.Helper()
	require.NotNil(s, pod)
	require.True(s, Signal(s, pod, r, signal), "no %s in %s", r, pod.Name)
}

// Freeze stops a process until the test's end, or until the answer is called.
func Freeze(s *space.Space, pod *corev1.Pod, r Role) (thaw func()) {
	s.Helper()
	p := Find(pod, r)
	require.NotNil(s, p, "no %s in %s", r, pod.Name)
	fd, err := unix.PidfdOpen(p.PID, 0)
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

// Main is the application's first process: under a gate the shim's child,
// without one the container's first.
func Main(pod *corev1.Pod) *Process {
	all := Of(pod)
	for _, p := range all {
		above, ok := read(filepath.Join("/proc", fmt.Sprint(p.parent)))
		if !ok || p.Role == "pause" || p.Role == Shim || p.Role == Agent {
			continue
		}
		gated := pod.Labels[api.GatedLabel] == api.Gated
		if (gated && above.Role == Shim) || (!gated && above.Role == RuntimeShim) {
			return &p
		}
	}
	return nil
}

// SignalMain signals the application's first process.
func SignalMain(s *space.Space, pod *corev1.Pod, signal unix.Signal) {
	s.Helper()
	p := Main(pod)
	require.NotNil(s, p, "no application in %s", pod.Name)
	require.True(s, p.Signal(signal), "no application in %s", pod.Name)
}

// Hears tells whether a process has a handler for a signal. The kernel drops what a
// container's first process does not handle: one that has just been started and is
// asked to stop then uses up its whole grace, with the gate or without it.
func Hears(p *Process, signal unix.Signal) bool {
	if p == nil {
		return false
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	_, caught, _ := strings.Cut(string(status), "SigCgt:\t")
	caught, _, _ = strings.Cut(caught, "\n")
	mask, err := strconv.ParseUint(caught, 16, 64)
	return err == nil && mask&(1<<(signal-1)) != 0
}
