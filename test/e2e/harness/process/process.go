// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
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

// Role is the task of a process in its pod. The role of a program that is not ours is the program's
// name.
type Role string

const (
	// Child is the test application. The role has the name of the application's program.
	Child Role = "app"
	// Shim is the first process of the application's container.
	Shim Role = "shim"
	// Agent is the sidecar.
	Agent Role = "agent"
	// Waiter is the process in the last init container of a pod with the gate "pod".
	Waiter Role = "waiter"
	// passing is the role of a short-lived process of the agent's binary: a hook, a
	// probe, or a fork of the shim. A fork has the shim's command line until its exec.
	passing Role = "passing"
	// RuntimeShim is the process of containerd that is the parent of the pod's containers.
	RuntimeShim Role = "containerd-shim"
)

// Process describes a process of a pod at the time when [Of] found the process.
type Process struct {
	PID, parent int
	// started is the start time. A later process with the same PID has another start time.
	started string
	Role    Role
}

// Of returns the processes of a pod, without those of the role "passing". The result also has the
// containerd shims that are parents of the pod's agent and shims.
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

// read reads a process from its directory in /proc. The bool is false if the process is gone
// or has no command line.
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

// Sockets counts the open sockets of the process; zero if the process is gone.
func (p *Process) Sockets() (n int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID))
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// Listens reports whether anything in the network namespace of the process listens on the port.
func (p *Process) Listens(port int) bool {
	for _, table := range []string{"tcp", "tcp6"} {
		// Each line of the table describes a socket by a number, two addresses in hexadecimal
		// digits, and a state. The state 0A means that the socket listens.
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.PID, table))
		if err == nil && regexp.MustCompile(fmt.Sprintf(`: [0-9A-F]+:%04X [0-9A-F]+:0000 0A `, port)).Match(text) {
			return true
		}
	}
	return false
}

// Resident returns the resident memory of the process in bytes; zero if the process is gone. The
// result "own" is the part of this memory that no file backs.
func (p *Process) Resident() (all, own int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes); n == 1 {
			all = kilobytes << 10
		}
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kilobytes); n == 1 {
			own = kilobytes << 10
		}
	}
	return all, own
}

// born returns a process's parent, and the process's own start time in clock ticks since the boot.
// The result "ok" is false if the process is gone.
func born(dir string) (parent int, started string, ok bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, "", false
	}
	// Field 2, the program's name, may contain spaces and parentheses. So born splits only
	// the text after the last parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[19], err == nil
}

// first reports whether a process is the first of its container.
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

// roleOf returns the role of a process with the given command line.
func roleOf(args []string) Role {
	name := filepath.Base(args[0])
	switch {
	case name == "agent" && slices.Contains(args, "exec"):
		return Shim
	case name == "agent" && (slices.Contains(args, "run") || slices.Contains(args, "api")):
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

// Find returns a pod's process in a role, or nil.
func Find(pod *corev1.Pod, r Role) *Process {
	for _, p := range Of(pod) {
		if p.Role == r {
			return &p
		}
	}
	return nil
}

// Signal sends a signal to a pod's process in a role. The result is false if no process has
// that role, or if the process has just ended.
func Signal(s *space.Space, pod *corev1.Pod, r Role, signal unix.Signal) bool {
	s.Helper()
	p := Find(pod, r)
	if p == nil {
		return false
	}
	return p.Signal(signal)
}

// Signal sends a signal to a process, and reports whether the process was still there.
func (p *Process) Signal(signal unix.Signal) bool {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// Another process may have got the PID before the pidfd was opened. Only the start time
	// identifies a process, because its command line and its parent can change.
	if _, started, ok := born(fmt.Sprintf("/proc/%d", p.PID)); !ok || started != p.started {
		return false
	}
	return unix.PidfdSendSignal(fd, signal, nil, 0) == nil
}

// MustSignal sends a signal to a pod's process in a role. This process must exist.
func MustSignal(s *space.Space, pod *corev1.Pod, r Role, signal unix.Signal) {
	s.Helper()
	require.NotNil(s, pod)
	require.True(s, Signal(s, pod, r, signal), "no %s in %s", r, pod.Name)
}

// Freeze suspends a pod's process in a role, until the returned function is called, or until the
// test ends.
func Freeze(s *space.Space, pod *corev1.Pod, r Role) (thaw func()) {
	s.Helper()
	p := Find(pod, r)
	require.NotNil(s, p, "no %s in %s", r, pod.Name)
	return FreezePID(s, p.PID)
}

// FreezePID suspends a process, until the returned function is called, or until the test ends.
func FreezePID(s *space.Space, pid int) (thaw func()) {
	s.Helper()
	require.Positive(s, pid)
	fd, err := unix.PidfdOpen(pid, 0)
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

// Main returns the application's first process, or nil. In a gated pod, Main returns the shim's
// child. In an ungated pod, Main returns the first process of the container.
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

// SignalMain signals the application's first process, which must exist.
func SignalMain(s *space.Space, pod *corev1.Pod, signal unix.Signal) {
	s.Helper()
	p := Main(pod)
	require.NotNil(s, p, "no application in %s", pod.Name)
	require.True(s, p.Signal(signal), "no application in %s", pod.Name)
}

// Hears reports whether a process handles a signal. The kernel drops signals that a
// container's first process does not handle. So a pod that is asked to stop right after
// its start uses up its whole grace, gated or not.
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

// Beside calls the function in the network namespace of a process.
func Beside(pid int, f func() error) error {
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // without an unlock, so the thread ends with the goroutine
		ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			if err = unix.Setns(ns, unix.CLONE_NEWNET); err == nil {
				err = f()
			}
			unix.Close(ns)
		}
		ended <- err
	}()
	return <-ended
}
