// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package witness reports when the applications of pods start and end. The source is the kernel's
// process connector, and not the code under test.
//
// The witness sees the processes of all nodes of the test cluster, because the nodes share one
// kernel. The kernel itself notes the time of each exec and exit, by its one clock,
// CLOCK_MONOTONIC. The witness needs root in the first user and network namespaces, and a kernel
// with CONFIG_PROC_EVENTS.
//
// On a busy machine the socket's buffer may overflow, and events are lost. Then
// [Witness.Run] fails instead of going on with a gap.
package witness

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind reports whether an event is a start or an end.
type Kind string

const (
	// Exec means that a process has executed the program that the [Witness] observes.
	Exec Kind = "exec"
	// Exit means that the main thread of the process has ended. The process's descendants
	// may live on.
	Exit Kind = "exit"
)

// Event is the start or the end of one process.
type Event struct {
	Kind Kind
	// At is the instant of the event, by the kernel's CLOCK_MONOTONIC.
	At time.Duration
	// Process is the process that started or ended.
	Process Process
}

// Process is a program's process in a pod.
type Process struct {
	// PID is the id of the process on the host.
	PID int
	// Pod is the UID of the pod whose cgroup contains the process.
	Pod string
	// Program is the base name of the executed program.
	Program string
}

// Witness observes the processes of one program in all pods.
type Witness struct {
	program   string
	connector connector
	alive     map[int]Process
}

// Listen subscribes to the kernel's events. After Listen has returned, the witness misses
// no start or end.
func Listen(program string) (*Witness, error) {
	c, err := connect()
	if err != nil {
		return nil, err
	}
	w := &Witness{program: program, connector: c, alive: map[int]Process{}}
	if err := w.findAlive(); err != nil {
		c.close()
		return nil, err
	}
	return w, nil
}

// findAlive finds the processes of the program that are already running.
func (w *Witness) findAlive() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err == nil {
			w.identify(pid)
		}
	}
	return nil
}

// Alive returns the processes of the program that were alive when [Listen] returned. Call Alive only
// before [Witness.Run].
func (w *Witness) Alive() []Process {
	var alive []Process
	for _, p := range w.alive {
		alive = append(alive, p)
	}
	return alive
}

// Run passes each event to a function, in the kernel's order, until ctx ends. The call
// fails if events were lost.
func (w *Witness) Run(ctx context.Context, hear func(Event)) error {
	return w.connector.run(ctx, func(n notice) { w.take(n, hear) })
}

func (w *Witness) take(n notice, hear func(Event)) {
	if n.thread != n.pid {
		return // the notice is not about the process's main thread
	}
	switch n.what {
	case whatExec:
		if p, ok := w.identify(n.pid); ok {
			hear(Event{Exec, n.at, p})
		}
	case whatExit:
		if p, ok := w.alive[n.pid]; ok {
			delete(w.alive, n.pid)
			hear(Event{Exit, n.at, p})
		}
	}
}

// podOf finds a pod's UID in a cgroup's path, for both cgroup drivers.
var podOf = regexp.MustCompile(`pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})`)

// identify returns the process with a PID, and adds the process to the living processes. The second
// result is false if the process does not run the program, or runs the program outside of pods.
func (w *Witness) identify(pid int) (Process, bool) {
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	// The kernel keeps only the first 15 characters of a program's name.
	if err != nil || strings.TrimSpace(string(command)) != w.program[:min(len(w.program), 15)] {
		return Process{}, false
	}
	pod := podAt(pid)
	if pod == "" {
		return Process{}, false
	}
	p := Process{PID: pid, Pod: pod, Program: w.program}
	w.alive[pid] = p
	return p, true
}

// podAt returns the UID of the pod of a process; empty means none.
func podAt(pid int) string {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	match := podOf.FindSubmatch(groups)
	if match == nil {
		return ""
	}
	return strings.ReplaceAll(string(match[1]), "_", "-")
}

// Now returns the time of CLOCK_MONOTONIC, by which the kernel dates events.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every kernel has this clock
	}
	return time.Duration(t.Nano())
}

// Running is a process in a pod, with its arguments.
type Running struct {
	Process
	Args []string
}

// Processes returns the processes of a program that run in pods now. If /proc cannot be read, the
// result is nil.
func Processes(program string) []Running {
	w := &Witness{program: program, alive: map[int]Process{}}
	if err := w.findAlive(); err != nil {
		return nil
	}
	var running []Running
	for _, p := range w.alive {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err == nil {
			running = append(running, Running{p, strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")})
		}
	}
	return running
}
