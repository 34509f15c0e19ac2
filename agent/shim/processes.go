// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

func (k *kernel) Reap() (int, unix.WaitStatus, bool) { return linux.Reap() }

func (k *kernel) Signal(pid int, sig syscall.Signal) error { return linux.Signal(pid, sig) }

func (k *kernel) Descendants() ([]linux.Process, error) { return linux.OwnDescendants() }

func (k *kernel) Find(pid int) (linux.Process, bool) { return linux.FindProcess(pid) }

func (k *kernel) Expects(pid int, sig syscall.Signal) bool {
	status, err := linux.ReadStatus(pid)
	return err != nil || status.Expects(sig)
}

func (k *kernel) TakeTerminal() { k.tty.Take() }

// Start forks in another goroutine, because the exec may hang.
func (k *kernel) Start(c *Command) {
	go func() {
		if c.Child {
			pid, err := k.startChild(c)
			k.started <- Start{Command: c, PID: pid, Err: err}
			return
		}
		pid, out, err := startAside(c)
		if err != nil {
			k.started <- Start{Command: c, Err: err}
			return
		}
		k.started <- Start{Command: c, PID: pid, Output: out}
		out.read(func(kept []byte) { k.finished <- Result{Command: c, Output: kept} })
	}()
}

// startChild starts the child in a new session, as the container runtime would. The child gets
// the shim's standard files, directory, identity and limits. The Go runtime has raised the
// limit on open files, and syscall.ForkExec restores it.
func (k *kernel) startChild(c *Command) (pid int, err error) {
	attr := &syscall.ProcAttr{
		Env:   c.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if k.giveTerminal() {
		attr.Sys.Setctty, attr.Sys.Ctty = true, k.tty.FD
	}
	defer k.ignoreAsFound()()
	pid, err = linux.Fork(c.Path, c.Argv, attr)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", c.Argv[0], err)
	}
	return pid, nil
}

// giveTerminal gives the terminal up, and reports whether the shim had one. The kernel then
// sends SIGHUP and SIGCONT to the shim, which must not pass them to the child.
func (k *kernel) giveTerminal() bool {
	if k.tty.FD < 0 {
		return false
	}
	signal.Ignore(unix.SIGHUP, unix.SIGCONT)
	defer signal.Notify(k.signals, unix.SIGHUP, unix.SIGCONT)
	return k.tty.Give()
}

// ignoreAsFound makes the shim ignore the signals that it ignored at its start (nohup), because
// the forked child inherits this setting. After the fork, the caller calls undo, which restores
// the shim's own handling.
func (k *kernel) ignoreAsFound() (undo func()) {
	for _, sig := range k.ignored {
		signal.Ignore(sig)
	}
	return func() {
		for _, sig := range k.ignored {
			signal.Notify(k.signals, sig)
		}
	}
}

// startAside starts a command without input. The results are the command's PID, and a reader of the
// command's output.
func startAside(c *Command) (pid int, out *output, err error) {
	file, err := linux.LookPath(c.Argv[0], os.Getenv("PATH"))
	if err != nil {
		return 0, nil, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", c.Argv[0], err)
	}
	defer unix.Close(pipe[1])
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(null)
		pid, err = linux.Fork(file, c.Argv, &syscall.ProcAttr{
			Env:   c.Env,
			Files: []uintptr{uintptr(null), uintptr(pipe[1]), uintptr(pipe[1])},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	}
	if err != nil {
		unix.Close(pipe[0])
		return 0, nil, fmt.Errorf("start %s: %w", c.Argv[0], err)
	}
	_ = unix.SetNonblock(pipe[0], true) // the Go runtime's poller needs a non-blocking pipe
	return pid, &output{pipe: os.NewFile(uintptr(pipe[0]), "output"), ended: make(chan struct{})}, nil
}

// output implements [Output] for the type kernel.
type output struct {
	pipe  *os.File
	ended chan struct{} // closed once the process is reaped
	kept  []byte
}

// End implements Output. After End, the method "read" delivers the kept output.
func (o *output) End() {
	close(o.ended)
	_ = o.pipe.SetReadDeadline(time.Unix(1, 0))
}

// read keeps the first [gate.MostOutput] bytes of the output. Once the process has ended, read
// passes these bytes to the function "finished". A descendant may keep the pipe open for longer,
// and SIGPIPE would kill a process that writes to a closed pipe. So read goes on, and drops all
// further output.
func (o *output) read(finished func(kept []byte)) {
	defer o.pipe.Close()
	buf := make([]byte, 4<<10)
	var n int
	var err error
	for err == nil {
		n, err = o.pipe.Read(buf)
		o.keep(buf[:n])
	}
	<-o.ended
	if raw, errRaw := o.pipe.SyscallConn(); errRaw == nil {
		_ = raw.Control(func(fd uintptr) {
			for n = 1; n > 0 && len(o.kept) < gate.MostOutput; o.keep(buf[:max(n, 0)]) {
				n, _ = unix.Read(int(fd), buf)
			}
		})
	}
	finished(o.kept)
	err = o.pipe.SetReadDeadline(time.Time{})
	for err == nil {
		_, err = o.pipe.Read(buf)
	}
}

func (o *output) keep(b []byte) {
	o.kept = append(o.kept, b[:min(len(b), gate.MostOutput-len(o.kept))]...)
}
