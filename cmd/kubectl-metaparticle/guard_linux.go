// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// The messages to the guard, one in a line. Both numbers of a grant are instants of CLOCK_BOOTTIME, in
// nanoseconds. The end of the messages means that "hold" is dead.
const (
	grantMessage  = "grant"  // grant DRAIN-AT KILL-AT
	signalMessage = "signal" // signal NUMBER
	drainMessage  = "drain"  // SIGTERM now
	killMessage   = "kill"   // SIGKILL now
)

// guard runs a command, and lets none of its processes live beyond the last grant.
type guard struct {
	child           *exec.Cmd
	drainAt, killAt time.Duration
	drained, killed bool
	// terminal reports that the command has the terminal, as hold had it.
	terminal bool
	status   unix.WaitStatus
	ended    bool
}

// guardMain is the main function of the watchdog.
func guardMain() {
	unix.CloseOnExec(3)    // the command must not read its grants
	runtime.LockOSThread() // the parent-death signal belongs to the thread that starts the child
	os.Exit(runGuard(os.NewFile(3, "grants"), os.Args[2:]))
}

func runGuard(grants io.Reader, command []string) int {
	fail := func(err error) int {
		say(os.Stderr, "error: %s", err)
		return exitError
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fail(fmt.Errorf("become the parent of orphans: %w", err))
	}
	alarm, err := linux.NewAlarm()
	if err != nil {
		return fail(err)
	}
	go alarm.Run()
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	// A handler is reset in the command, while an ignored signal would stay ignored there.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGTERM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	messages := make(chan string)
	go func() {
		defer close(messages)
		for lines := bufio.NewScanner(grants); lines.Scan(); {
			messages <- lines.Text()
		}
	}()
	g := &guard{}
	first, ok := <-messages
	if !ok || !g.take(first) || linux.Now() >= g.drainAt {
		return fail(errors.New("the lock was lost before the command started"))
	}
	if err := g.start(command); err != nil {
		return fail(err)
	}
	for {
		if g.reap() {
			return g.code()
		}
		g.enforce(linux.Now())
		alarm.Set(g.next())
		select {
		case <-alarm.C:
		case <-children:
		case message, open := <-messages:
			if !open {
				messages = nil
				g.killed = true
			} else {
				g.take(message)
			}
		}
	}
}

// start starts the command in a process group of its own, which gets the terminal.
func (g *guard) start(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	g.child = &exec.Cmd{Path: path, Args: command, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	g.child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	hold, _ := unix.Getpgid(os.Getppid())
	foreground, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	g.terminal = err == nil && foreground == hold
	if err := g.child.Start(); err != nil {
		return err
	}
	g.bringForward()
	return nil
}

// bringForward gives the terminal to the command, and continues the command if it has stopped because it
// used the terminal too early, or at Ctrl-Z. A stopped command would keep the lock, and nobody could
// type "fg": the shell waits for hold, which has not stopped.
func (g *guard) bringForward() {
	if g.terminal {
		signal.Ignore(unix.SIGTTOU) // the command, which is started already, has the default
		_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, g.child.Process.Pid)
		_ = unix.Kill(-g.child.Process.Pid, unix.SIGCONT)
	}
}

// take obeys a message. Once a stop has begun, no grant ends it.
func (g *guard) take(message string) bool {
	words := strings.Fields(message)
	numbers := make([]int64, 0, 2)
	for _, word := range words[min(1, len(words)):] {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return false
		}
		numbers = append(numbers, n)
	}
	switch {
	case len(words) == 3 && words[0] == grantMessage:
		if !g.drained {
			g.drainAt, g.killAt = time.Duration(numbers[0]), time.Duration(numbers[1])
		}
	case len(words) == 2 && words[0] == signalMessage && !g.ended:
		_ = unix.Kill(-g.child.Process.Pid, unix.Signal(numbers[0]))
	case len(words) == 1 && words[0] == drainMessage:
		g.drainAt = 0
	case len(words) == 1 && words[0] == killMessage:
		g.killed = true
	default:
		return false
	}
	return true
}

// enforce stops the command if its grant demands that. After the command's own end, all others die.
func (g *guard) enforce(now time.Duration) {
	if g.killed || now >= g.killAt || g.ended {
		g.killed = true
		g.kill()
		return
	}
	if now >= g.drainAt && !g.drained {
		g.drained = true
		_ = unix.Kill(-g.child.Process.Pid, unix.SIGTERM)
		_ = unix.Kill(-g.child.Process.Pid, unix.SIGCONT)
	}
}

// kill kills all descendants. Those that left the process group are found in /proc, because orphans
// become children of the guard. A process that forks meanwhile is found by the next call.
func (g *guard) kill() {
	if !g.ended {
		_ = unix.Kill(-g.child.Process.Pid, unix.SIGKILL)
	}
	killDescendants()
}

// killDescendants kills the descendants of this process, as far as the kernel permits.
func killDescendants() {
	all, _ := linux.OwnDescendants()
	_ = linux.KillAll(all, unix.Kill)
}

// next returns the instant at which the guard must act again.
func (g *guard) next() time.Duration {
	switch {
	case g.killed:
		return linux.Now() + linux.KillAgain
	case g.drained:
		return g.killAt
	}
	return min(g.drainAt, g.killAt)
}

// reap reaps what has ended, and reports whether no process is left. It learns of the stops of the
// command alone.
func (g *guard) reap() (none bool) {
	var status unix.WaitStatus
	if pid, _ := unix.Wait4(g.child.Process.Pid, &status, unix.WNOHANG|unix.WUNTRACED, nil); pid > 0 && !g.ended {
		switch {
		case !status.Stopped():
			g.status, g.ended = status, true
		case status.StopSignal() != unix.SIGSTOP: // nobody but a terminal sends the others
			g.bringForward()
		}
	}
	for {
		pid, status, none := linux.Reap()
		switch {
		case none:
			return true
		case pid == 0:
			return false
		case pid == g.child.Process.Pid:
			g.status, g.ended = status, true
		}
	}
}

func (g *guard) code() int {
	if g.status.Signaled() {
		return 128 + int(g.status.Signal())
	}
	return g.status.ExitStatus()
}
