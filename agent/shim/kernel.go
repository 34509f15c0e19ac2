// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
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
	// PidfdOpen fails on Linux before 5.3, or if seccomp forbids it. From Linux 6.5 on, the server
	// does not need this pidfd, because the kernel gives the server a pidfd of the shim. A server
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

// A shim that cannot connect tries again as soon as a socket appears. If no socket appears, the
// shim tries again after a pause of redialFirst. Each further pause is twice as long, but not
// longer than redialMost. An agent process takes about redialFirst to start. If the shim cannot
// watch the directory, it may connect up to redialMost after the socket has appeared.
const (
	redialFirst = 50 * time.Millisecond
	redialMost  = 2 * time.Second
)

// socketConn implements [Conn] for the type kernel.
type socketConn struct {
	*linux.Conn
	pidfds []int // the first message carries these pidfds
}

func (c *socketConn) Send(message []byte) error {
	fds := c.pidfds
	c.pidfds = nil
	return c.Conn.Send(message, fds...)
}

// connect keeps a connection to the server for as long as the process lives. The channel "inputs"
// receives each connection, its end, and the server's orders.
func connect(socket string, pidfd int, inputs chan<- Input) {
	pause := redialFirst
	for {
		c := dial(socket, &pause)
		began := linux.Now()
		up := &socketConn{Conn: c}
		if pidfd >= 0 {
			up.pidfds = []int{pidfd}
		}
		inputs <- Connection{up}
		for {
			o, err := receive(c)
			if err != nil {
				break
			}
			inputs <- o
		}
		inputs <- Connection{}
		c.Close()
		if linux.Now()-began > redialMost {
			pause = redialFirst
		} else {
			// The server hung up after a short time, so the shim pauses before it connects again.
			pauseFor(nil, &pause)
		}
	}
}

func receive(c *linux.Conn) (gate.Order, error) {
	b, file, err := c.Receive()
	if file != nil {
		file.Close()
	}
	if err != nil {
		return gate.Order{}, err
	}
	return gate.DecodeOrder(b)
}

// dial tries to connect to the server until a connection is up.
func dial(socket string, pause *time.Duration) *linux.Conn {
	watch := watchDir(filepath.Dir(socket)) // the watch begins before the first try, so no socket is missed
	if watch != nil {
		defer watch.Close()
	}
	for {
		u, err := net.DialUnix(linux.Network, nil, &net.UnixAddr{Name: socket, Net: linux.Network})
		if err == nil {
			c, err := linux.NewConn(u, gate.MaxMessage)
			if err == nil {
				return c
			}
			u.Close()
		}
		pauseFor(watch, pause)
	}
}

// watchDir watches for a socket that is moved into the directory. If the directory cannot be
// watched, the result is nil. (A node has a limited number of watches.)
func watchDir(dir string) *os.File {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), "inotify")
}

// pauseFor waits until the pause is over, or until a file is moved into the watched directory.
// Then pauseFor doubles the pause, up to redialMost. The argument "watch" may be nil.
func pauseFor(watch *os.File, pause *time.Duration) {
	wait := *pause
	*pause = min(2*wait, redialMost)
	if watch != nil {
		var events [4096]byte
		if watch.SetReadDeadline(time.Now().Add(wait)) == nil {
			if _, err := watch.Read(events[:]); err == nil || os.IsTimeout(err) {
				return
			}
		}
	}
	<-time.After(wait)
}
