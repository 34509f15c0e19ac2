// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package witness tells when the applications of pods start and end, on the
// kernel's word (its process connector), not on that of anything under test.
//
// It sees the processes of all nodes of the test cluster, because they share
// one kernel, and stamps them with that kernel's one clock, CLOCK_MONOTONIC, at
// the exec and at the exit themselves. It needs root in the first user and
// network namespaces, and a kernel with CONFIG_PROC_EVENTS.
//
// Events can be lost when the machine is busier than the socket's buffer is
// large; [Witness.Run] then fails instead of going on with a gap.
package witness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what happened.
type Kind string

const (
	// Exec: a process became the program.
	Exec Kind = "exec"
	// Exit: the process that had become the program is dead (all of its
	// threads; descendants may live on).
	Exit Kind = "exit"
)

// Event is one start or end.
type Event struct {
	Kind Kind
	// At is the kernel's CLOCK_MONOTONIC.
	At time.Duration
	// Process is who it was.
	Process Process
}

// Process is a program's process in a pod.
type Process struct {
	// PID is the host's.
	PID int
	// Pod is the UID of the pod whose cgroup it is in.
	Pod string
	// Program is the base name of what was executed.
	Program string
}

// Witness hears of one program in all pods.
type Witness struct {
	program string
	socket  int
	alive   map[int]Process
}

// Layout of a message: nlmsghdr (16), cn_msg (20), then proc_event, whose
// header (what, cpu, timestamp) takes 16 and is followed by pid and tgid.
const (
	netlinkHeader   = 16
	connectorHeader = 20
	eventAt         = netlinkHeader + connectorHeader
	eventLength     = eventAt + 16 + 8

	connectorProc = 1 // CN_IDX_PROC, CN_VAL_PROC
	listen        = 1 // PROC_CN_MCAST_LISTEN
	whatExec      = 0x00000002
	whatExit      = 0x80000000
)

// receiveBuffer holds some ten thousand events: seconds of a busy machine.
const receiveBuffer = 8 << 20

// Listen begins to hear; what starts or ends from here on is not missed.
func Listen(program string) (*Witness, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's process connector: %w", err)
	}
	w := &Witness{program: program, socket: fd, alive: map[int]Process{}}
	if err := w.subscribe(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to the kernel's process connector (root and CONFIG_PROC_EVENTS are needed): %w", err)
	}
	if err := w.findAlive(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return w, nil
}

func (w *Witness) subscribe() error {
	if err := unix.Bind(w.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorProc}); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(w.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	// So that the reader looks at its context now and then.
	if err := unix.SetsockoptTimeval(w.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return err
	}
	message := make([]byte, 0, eventAt+4)
	message = binary.NativeEndian.AppendUint32(message, eventAt+4)
	message = binary.NativeEndian.AppendUint16(message, unix.NLMSG_DONE)
	message = append(message, make([]byte, 10)...)                     // flags, sequence, port
	message = binary.NativeEndian.AppendUint32(message, connectorProc) // idx
	message = binary.NativeEndian.AppendUint32(message, connectorProc) // val
	message = append(message, make([]byte, 8)...)                      // seq, ack
	message = binary.NativeEndian.AppendUint16(message, 4)             // length of what follows
	message = binary.NativeEndian.AppendUint16(message, 0)             // flags
	message = binary.NativeEndian.AppendUint32(message, listen)        //
	return unix.Sendto(w.socket, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// findAlive finds those that started before.
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

// Alive are the processes of the program that were alive at Listen. Not to be
// called once Run runs.
func (w *Witness) Alive() []Process {
	var alive []Process
	for _, p := range w.alive {
		alive = append(alive, p)
	}
	return alive
}

// Run hands on each event, in the kernel's order, until ctx ends. It fails if
// events were lost.
func (w *Witness) Run(ctx context.Context, hear func(Event)) error {
	defer unix.Close(w.socket)
	buffer := make([]byte, 4096)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(w.socket, buffer, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			return errors.New("the kernel dropped process events: the machine is too busy for a record without gaps")
		case err != nil:
			return fmt.Errorf("read process events: %w", err)
		case n < eventLength:
			continue
		}
		w.take(buffer[eventAt:n], hear)
	}
	return nil
}

func (w *Witness) take(event []byte, hear func(Event)) {
	what := binary.NativeEndian.Uint32(event)
	at := time.Duration(binary.NativeEndian.Uint64(event[8:]))
	thread, pid := int(binary.NativeEndian.Uint32(event[16:])), int(binary.NativeEndian.Uint32(event[20:]))
	if thread != pid {
		return // a thread's end is not the process's
	}
	switch what {
	case whatExec:
		if p, ok := w.identify(pid); ok {
			hear(Event{Exec, at, p})
		}
	case whatExit:
		if p, ok := w.alive[pid]; ok {
			delete(w.alive, pid)
			hear(Event{Exit, at, p})
		}
	}
}

// podOf finds a pod's UID in a cgroup's path, for both cgroup drivers.
var podOf = regexp.MustCompile(`pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})`)

// identify notes a process that is the program, in a pod, and not the kubelet's
// or a person's doing (kubectl exec).
func (w *Witness) identify(pid int) (Process, bool) {
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	// The kernel keeps 15 characters of a name.
	if err != nil || strings.TrimSpace(string(command)) != w.program[:min(len(w.program), 15)] {
		return Process{}, false
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Process{}, false
	}
	match := podOf.FindSubmatch(groups)
	if match == nil {
		return Process{}, false
	}
	p := Process{PID: pid, Pod: strings.ReplaceAll(string(match[1]), "_", "-"), Program: w.program}
	w.alive[pid] = p
	return p, true
}

// Now is the clock that events are stamped with.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // it takes a clock that does not exist
	}
	return time.Duration(t.Nano())
}

// Running is a process in a pod, with its arguments.
type Running struct {
	Process
	Args []string
}

// Processes are those of a program that run in pods now.
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
