// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// kernel implements [Machine] by the real Linux kernel. [Exec] uses this Machine.
type kernel struct {
	*linux.Leaps
	lines   chan string // the lines for the container's log
	written chan struct{}
	tty     linux.Terminal
	ignored []os.Signal // SIGHUP and SIGINT, if they were ignored at the start
	alarm   *linux.Alarm
	beat    *time.Ticker

	signals  chan os.Signal
	children chan os.Signal
	started  chan Start
	finished chan Result
	links    chan Input
}

// newKernel returns a machine. Before the call of open, Say works, but Next and Wake do not.
func newKernel(log io.Writer) *kernel {
	k := &kernel{lines: make(chan string, 16), written: make(chan struct{})}
	go func() {
		defer close(k.written)
		for line := range k.lines {
			_, _ = io.WriteString(log, line)
		}
	}()
	return k
}

// open makes the shim the reaper of all its descendants, and starts the inputs of the machine.
func (k *kernel) open(cfg Config) (id Identity, err error) {
	id = Identity{Shim: gate.ShimID(rand.Text()), PID1: os.Getpid() == 1}
	if id.BootID, err = linux.BootID(); err != nil {
		return id, err
	}
	if id.PID1 {
		linux.SpreadNumbers()
	} else {
		// By default the kernel gives orphans to PID 1. From now on the kernel gives the orphans
		// among the shim's descendants to the shim.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return id, fmt.Errorf("become the reaper: %w", err)
		}
	}
	if k.alarm, err = linux.NewAlarm(); err != nil {
		return id, err
	}
	if k.Leaps = cfg.Leaps; k.Leaps == nil {
		k.Leaps = linux.NewLeaps()
	}
	// PidfdOpen fails on Linux before 5.3, or if seccomp forbids it. From Linux 6.5 on, the desk
	// does not need this pidfd, because the kernel gives the desk a pidfd of the shim. A desk
	// without any pidfd refuses the shim, and logs why.
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		pidfd = -1
	}
	k.beat = time.NewTicker(gate.BeatEvery)
	k.links = make(chan Input)
	// The channel has room for a burst of different signals. The kernel merges signals of the
	// same kind.
	k.signals = make(chan os.Signal, 64)
	k.children = make(chan os.Signal, 1)
	k.started = make(chan Start)
	k.finished = make(chan Result)
	k.tty = linux.FindTerminal()
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if signal.Ignored(sig) {
			k.ignored = append(k.ignored, sig)
		}
	}
	signal.Notify(k.children, unix.SIGCHLD)
	catch(k.signals)
	go k.alarm.Run()
	go k.Leaps.Run()
	go linux.Trim(context.Background())
	go connect(cfg.Socket, pidfd, k.links)
	return id, nil
}

// catch makes the channel c receive every signal that a process can catch, except SIGCHLD and
// SIGURG. The reaper needs SIGCHLD, and the Go runtime uses SIGURG to interrupt its own threads.
// So a child behind the shim never gets these two signals from outside.
func catch(c chan os.Signal) {
	for n := syscall.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGKILL, unix.SIGSTOP:
		default:
			signal.Notify(c, n)
		}
	}
}

func (k *kernel) Now() time.Duration { return linux.Now() }

func (k *kernel) Wake(at time.Duration) { k.alarm.Set(at) }

func (k *kernel) Next(starting bool) Input {
	if starting {
		select {
		case in := <-k.started:
			return in
		case <-k.beat.C:
			return Beat
		case <-k.alarm.C:
			return Rang
		}
	}
	select {
	case sig := <-k.signals:
		return sig.(syscall.Signal)
	case <-k.children:
		return Ended
	case in := <-k.started:
		return in
	case in := <-k.finished:
		return in
	case <-k.alarm.C:
		return Rang
	case <-k.Leaps.C:
		return ClockSet
	case <-k.beat.C:
		return Beat
	case in := <-k.links:
		return in
	}
}

func (k *kernel) Say(line string) {
	select {
	case k.lines <- line:
	default:
	}
}

// lastWords bounds the time for which an ending shim waits until its last log lines are written.
// Only a full pipe delays these lines.
const lastWords = 50 * time.Millisecond

func (k *kernel) finishWriting() {
	close(k.lines)
	select {
	case <-k.written:
	case <-time.After(lastWords):
	}
}
