// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package process starts the processes of the cluster, finds them again, and ends
// them.
//
// A process outlives the command that started it. A file in the state directory records its PID
// and start time. So no later process with the same PID is mistaken for the recorded process.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/cgroup"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// Enter returns the command prefix that runs a program in all of a node's namespaces.
func Enter(l *state.Lab, name string) ([]string, error) {
	pid := PID(l, name, state.Holder)
	if pid == 0 {
		if name == state.ControlPlane {
			return nil, state.ErrDown
		}
		return nil, fmt.Errorf("node %s is down", name)
	}
	return []string{"nsenter", "-t", fmt.Sprint(pid), "-m", "-p", "-n", "-u", "-i", "--"}, nil
}

// Process is a process of the cluster: the first process of a node (named [state.Holder]) or
// a daemon.
type Process struct {
	Node, Name string
	Command    []string
	Within     string     // the node whose namespaces the process enters; "" for those of the host
	Unshare    bool       // whether the process gets namespaces of its own
	Files      []*os.File // file descriptors of the process, from number 3 on
}

// record identifies a process. The kernel may use a PID again, but never with the same
// start time.
type record struct {
	pid   int
	start string
}

// StartLimit bounds the start of a process on a busy machine. Usually a start takes
// milliseconds.
const StartLimit = 30 * time.Second

// Start starts a process that outlives the caller's process. Start returns when the new
// process runs under its final PID, in its namespaces and cgroups.
func Start(ctx context.Context, l *state.Lab, p Process) error {
	ctx, cancel := context.WithTimeout(ctx, StartLimit)
	defer cancel()
	socket := l.RecordFile(p.Node, p.Name) + ".sock"
	_ = os.Remove(socket)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for the start of %s: %w", p.Name, err)
	}
	defer listener.Close()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()

	cmd, err := launcher(ctx, l, p, socket)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("start %s on %s: %w: %s", p.Name, p.Node, err, out)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		return fmt.Errorf("start %s on %s: no report, see %s", p.Name, p.Node, l.LogFile(p.Node, p.Name))
	}
	defer conn.Close()
	pid, err := peer(conn)
	if err != nil {
		return err
	}
	started, err := StartTime(pid)
	if err != nil {
		return err
	}
	if err := note(l, p.Node, p.Name, record{pid, started}); err != nil {
		return err
	}
	_, err = conn.Write([]byte("\n"))
	return err
}

// launcher returns the command that starts p. The command does not inherit this
// process's environment, so proxy settings reach no daemon.
func launcher(ctx context.Context, l *state.Lab, p Process, socket string) (*exec.Cmd, error) {
	launch := []string{
		l.Path("bin", "node"), "launch", "-report", socket, "-log", l.LogFile(p.Node, p.Name),
		"-inherit", strconv.Itoa(len(p.Files)),
	}
	if p.Unshare {
		launch = append(launch, "-unshare")
	} else {
		groups, err := cgroup.Open()
		if err != nil {
			return nil, err
		}
		launch = append(launch, "-cgroups", strings.Join(groups.Dirs(l.NodeCgroup(p.Node)+"/system"), ","))
	}
	launch = append(append(launch, "--"), p.Command...)
	if p.Within != "" {
		enter, err := Enter(l, p.Within)
		if err != nil {
			return nil, err
		}
		launch = append(enter, launch...)
	}
	cmd := exec.CommandContext(ctx, launch[0], launch[1:]...)
	cmd.Env = l.Environment()
	cmd.ExtraFiles = p.Files
	return cmd, nil
}

// peer returns the PID of the process at the other end of the connection. The PID is valid in the
// PID namespace of this process.
func peer(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("identify started process: %w", credErr)
	}
	return int(cred.Pid), nil
}

// StartTime returns the instant of a process's start, in the kernel's clock ticks since
// boot.
func StartTime(pid int) (string, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	return parseStartTime(string(stat))
}

// parseStartTime returns field 22 of /proc/PID/stat. Field 2 is a name in parentheses.
// This name can contain spaces and further parentheses.
func parseStartTime(stat string) (string, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("unexpected process state %q", stat)
	}
	// The state of a dead process is Z until its parent reaps the process, and X while
	// the parent reaps the process.
	if fields[0] == "Z" || fields[0] == "X" {
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}

// PID returns the PID of a node's process, or 0 if that process does not run.
func PID(l *state.Lab, node, name string) int {
	data, err := os.ReadFile(l.RecordFile(node, name))
	if err != nil {
		return 0
	}
	var r record
	if _, err := fmt.Sscan(string(data), &r.pid, &r.start); err != nil {
		return 0
	}
	if started, err := StartTime(r.pid); err != nil || started != r.start {
		return 0
	}
	return r.pid
}

// Recall finds a running cluster whose state directory was deleted, for example by git clean. The
// command line of the cluster's first process names a program and a socket in that directory.
// Recall writes the record of this process again.
func Recall(l *state.Lab) error {
	if PID(l, state.ControlPlane, state.Holder) != 0 {
		return nil
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range all {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return err
		}
		started, err := StartTime(pid)
		if err != nil {
			continue // the process has ended
		}
		line, _ := os.ReadFile(file)
		args := strings.Split(string(line), "\x00")
		if args[0] != l.Path("bin", state.Holder) || !slices.Contains(args, l.RecordFile(state.ControlPlane, state.Holder)+".sock") {
			continue
		}
		if err := note(l, state.ControlPlane, state.Holder, record{pid, started}); err != nil {
			return err
		}
	}
	return nil
}

// note records the identity of a process.
func note(l *state.Lab, node, name string, r record) error {
	if err := os.MkdirAll(l.Path("run"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(l.RecordFile(node, name), fmt.Appendf(nil, "%d %s\n", r.pid, r.start), 0o644)
}

// End kills a process and returns when that process is dead. The first process of a node
// is dead only when all processes in its PID namespace are dead.
func End(ctx context.Context, l *state.Lab, node, name string) error {
	pid := PID(l, node, name)
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// From now on the pidfd names one process for good. But before the call of PidfdOpen the
	// recorded process may have died, and the kernel may have given its PID to another process.
	// So the function PID compares the process with the record again.
	if PID(l, node, name) != pid {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s on %s: %w", name, node, err)
	}
	return awaitDeath(ctx, fd, name+" on "+node)
}

// deathLimit bounds the wait for the death of a process. The bound is long, because the kernel
// frees a node's memory and mounts before the node's first process counts as dead.
const deathLimit = 30 * time.Second

// awaitDeath waits until the process of a pidfd is dead.
func awaitDeath(ctx context.Context, pidfd int, what string) error {
	deadline := time.Now().Add(deathLimit)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		// Each poll is short, so that the loop notices a cancelled context.
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 200)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the end of %s: %w", what, err)
		}
		if ready > 0 {
			return nil
		}
	}
	return fmt.Errorf("wait for the end of %s: still there", what)
}
