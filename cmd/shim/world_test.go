// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// patience bounds every wait of a script. Only a bug makes a script wait for so long, even on a
// busy machine.
const patience = time.Minute

type worldKey struct{}

// world is the pod of one script: a shared directory, desks, and shims with their children. The
// desks use the directory one after another.
type world struct {
	env     *testscript.Env
	run     string // the shared directory
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	agents  map[string]*agentEnd
	acting  *agentEnd
	shims   map[string]*shimProcess
	order   []string // the names of the shims, in the order of their start
	grants  map[string]time.Duration
	prober  *prober
}

type agentEnd struct {
	name   string
	server *gate.Server
	cancel context.CancelFunc
	done   chan struct{}
}

type shimProcess struct {
	container string
	cmd       *exec.Cmd
	pid       int // the process id of the shim itself
	output    bytes.Buffer
	id        gate.ShimID // the id in the shim's first report
	report    gate.Report
	heardBy   string
	exited    *os.ProcessState
	tty       *os.File
	leaps     *os.File // each line moves the shim's wall clock
}

func newWorld(env *testscript.Env) *world {
	w := &world{
		env: env, run: filepath.Join(env.WorkDir, "run"), changed: make(chan struct{}),
		agents: map[string]*agentEnd{}, shims: map[string]*shimProcess{},
		grants: map[string]time.Duration{},
	}
	_ = os.MkdirAll(w.run, 0o777)
	return w
}

// change calls f, and then each waiting call of [world.until] checks its condition again. The
// caller must not hold the mutex.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// until waits until the condition is true, and checks the condition after each change. If that
// takes longer than [patience], the result is false.
func (w *world) until(cond func() bool) bool {
	late := time.After(patience)
	for {
		w.mu.Lock()
		ok, changed := cond(), w.changed
		w.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-late:
			return false
		}
	}
}

// startAgent starts a server, which acts once it has the flock.
func (w *world) startAgent(name string) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &agentEnd{name: name, cancel: cancel, done: make(chan struct{})}
	w.mu.Lock()
	w.agents[name] = a
	w.mu.Unlock()
	go func() {
		defer close(a.done)
		server, err := gate.Listen(ctx, gate.Config{
			Dir: w.run, Silence: 2500 * time.Millisecond,
			InstallHTTP: func() error { return shim.Install(self, filepath.Join(w.env.WorkDir, "bin", api.HookProgram)) },
		})
		if err != nil {
			if ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "the server %s does not listen: %v\n", name, err)
			}
			return
		}
		w.change(func() { a.server, w.acting = server, a })
		ran := make(chan error, 1)
		go func() { ran <- server.Run(ctx) }()
		for {
			select {
			case r := <-server.Reports():
				w.change(func() { w.hear(name, r) })
			case <-ran:
				return
			}
		}
	}()
}

// hear stores the report of a shim. If no shim has this id, the report belongs to the container's
// first shim without a report.
func (w *world) hear(agent string, r gate.Report) {
	for _, name := range w.order {
		s := w.shims[name]
		if s.id == r.Shim || s.id == "" && s.container == r.Container {
			s.id, s.report, s.heardBy = r.Shim, r, agent
			return
		}
	}
}

// collector collects the output of a shim and its child.
type collector struct {
	w *world
	s *shimProcess
}

func (c collector) Write(b []byte) (int, error) {
	c.w.change(func() { c.s.output.Write(b) })
	return len(b), nil
}

// self is the program of the test. Its copies act as the shim's program, and as the program of HTTP
// hooks ([TestMain]).
const self = "/proc/self/exe"

// startShim starts a shim. If the script demands that, the shim is PID 1 of a
// new namespace, or runs as another user. All processes of the shim have MARK in their environment.
func (w *world) startShim(name string, o shimOptions, args []string) error {
	argv := append([]string{filepath.Join(w.env.WorkDir, "bin", "agent")}, args...)
	if o.uid != "" {
		argv = append([]string{"setpriv", "--reuid", o.uid, "--regid", o.uid, "--clear-groups"}, argv...)
	}
	if o.caps != "" {
		left := "-all,+" + strings.ReplaceAll(o.caps, ",", ",+")
		argv = append([]string{"setpriv", "--bounding-set", left, "--inh-caps", "-all"}, argv...)
	}
	if o.pid1 {
		// If a signal killed unshare, the namespace would live on. But no script sends a signal
		// to unshare.
		argv = append([]string{"unshare", "--pid", "--fork", "--mount-proc"}, argv...)
	}
	s := &shimProcess{container: o.container, cmd: exec.Command(argv[0], argv[1:]...)}
	s.cmd.Dir = w.env.WorkDir
	s.cmd.Env = append(w.env.Vars, "MARK="+w.mark(name), "PATH="+o.path)
	leaps := filepath.Join(w.env.WorkDir, name+".leaps")
	if err := unix.Mkfifo(leaps, 0o644); err != nil && !os.IsExist(err) {
		return err
	}
	s.cmd.Env = append(s.cmd.Env, "LEAPS="+leaps)
	var err error
	// The pipe is opened for both reading and writing, so that neither end waits for the other.
	if s.leaps, err = os.OpenFile(leaps, os.O_RDWR, 0); err != nil {
		return err
	}
	out := collector{w, s}
	s.cmd.Stdout, s.cmd.Stderr = out, out
	if o.tty {
		if err := s.openTerminal(out); err != nil {
			return err
		}
	}
	// The shim's first report may arrive before Start returns. Without a change of the shim's state, no
	// second report follows.
	w.change(func() {
		w.shims[name] = s
		w.order = append(w.order, name)
	})
	if err := s.cmd.Start(); err != nil {
		w.change(func() {
			delete(w.shims, name)
			w.order = slices.DeleteFunc(w.order, func(n string) bool { return n == name })
		})
		return err
	}
	go func() {
		// cmd.Wait would also wait for the descendants of a killed shim, because they keep its
		// output open.
		state, _ := s.cmd.Process.Wait()
		w.change(func() { s.exited = state })
	}()
	return nil
}

// openTerminal gives the shim a terminal as the container runtime does.
func (s *shimProcess) openTerminal(out io.Writer) error {
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return err
	}
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = pts, pts, pts
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s.tty = ptmx
	go func() { _, _ = io.Copy(out, ptmx) }()
	return nil
}

type shimOptions struct {
	container string
	pid1      bool
	uid       string
	caps      string // the capabilities that the shim keeps; if empty, the shim keeps all
	tty       bool
	path      string
}

func (w *world) mark(name string) string { return w.env.WorkDir + "/" + name }

// pidOf returns the PID of the shim itself: the process named agent.
func (w *world) pidOf(s *shimProcess) int {
	pid := s.cmd.Process.Pid
	for s.pid == 0 {
		exe, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
		if filepath.Base(exe) == "agent" {
			s.pid = pid
			break
		}
		p := strconv.Itoa(pid)
		children, _ := os.ReadFile("/proc/" + p + "/task/" + p + "/children")
		first, _, _ := strings.Cut(strings.TrimSpace(string(children)), " ")
		next, err := strconv.Atoi(first)
		if err != nil {
			return pid
		}
		pid = next
	}
	return s.pid
}

// idOf returns the id of a shim; empty before the first report of the shim.
func (w *world) idOf(s *shimProcess) gate.ShimID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return s.id
}

func (w *world) actingAgent() *agentEnd {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acting
}

// alive returns the processes of a shim's container, except the shim and the process that the
// script started.
func (w *world) alive(name string) []int {
	shim := w.pidOf(w.shims[name])
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	var found []int
	for _, path := range all {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		env, err := environ(path)
		if err != nil || pid == shim || pid == w.shims[name].cmd.Process.Pid {
			continue
		}
		if bytes.Contains(append([]byte{0}, env...), []byte("\x00MARK="+w.mark(name)+"\x00")) {
			found = append(found, pid)
		}
	}
	return found
}

// environ reads the environment of a process. During an execve(2), a process already has its
// new executable, but neither an environment nor a command line. So environ waits until the
// execve(2) is over.
func environ(path string) ([]byte, error) {
	dir := filepath.Dir(path)
	for amidExec := true; amidExec; {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		program, _ := os.Readlink(filepath.Join(dir, "exe"))
		amidExec = len(line) == 0 && program != ""
	}
	return os.ReadFile(path)
}

// end ends the desks of the script, and then kills its remaining processes.
func (w *world) end() {
	for _, a := range w.agents {
		a.cancel()
		<-a.done
	}
	for name, s := range w.shims {
		s.leaps.Close()
		pids := w.alive(name)
		w.mu.Lock()
		exited := s.exited != nil
		w.mu.Unlock()
		if !exited {
			pids = append(pids, w.pidOf(s), s.cmd.Process.Pid)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		w.until(func() bool { return s.exited != nil })
	}
}
