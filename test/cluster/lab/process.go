// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

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
)

// process is one that the cluster started: a holder or a daemon.
type process struct {
	node, name string
	command    []string
	within     string     // node whose namespaces it enters; "" is the host's
	unshare    bool       // it gets namespaces of its own
	files      []*os.File // passed on from number 3
}

// record is what identifies a process for good: a PID is used again, a PID
// with its start time is not.
type record struct {
	pid   int
	start string
}

func (c *Cluster) recordFile(node, name string) string { return c.path("run", node+"-"+name) }
func (c *Cluster) logFile(node, name string) string {
	return c.path("log", node+"-"+name+".log")
}

// startLimit is what starting a process may take on a machine that is busy
// with everything else; it takes milliseconds.
const startLimit = 30 * time.Second

// start starts a process that outlives this one, and returns when it runs
// under its PID and in its namespaces and cgroups.
func (c *Cluster) start(ctx context.Context, p process) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	socket := c.recordFile(p.node, p.name) + ".sock"
	_ = os.Remove(socket)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for the start of %s: %w", p.name, err)
	}
	defer listener.Close()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()

	cmd, err := c.launcher(ctx, p, socket)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("start %s on %s: %w: %s", p.name, p.node, err, out)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		return fmt.Errorf("start %s on %s: no report, see %s", p.name, p.node, c.logFile(p.node, p.name))
	}
	defer conn.Close()
	pid, err := peer(conn)
	if err != nil {
		return err
	}
	started, err := startTime(pid)
	if err != nil {
		return err
	}
	if err := c.note(p.node, p.name, record{pid, started}); err != nil {
		return err
	}
	_, err = conn.Write([]byte("\n"))
	return err
}

// launcher is the command that starts p; it does not inherit this process's
// environment, so proxy settings reach no daemon.
func (c *Cluster) launcher(ctx context.Context, p process, socket string) (*exec.Cmd, error) {
	launch := []string{
		c.path("bin", "node"), "launch", "-report", socket, "-log", c.logFile(p.node, p.name),
		"-inherit", strconv.Itoa(len(p.files)),
	}
	if p.unshare {
		launch = append(launch, "-unshare")
	} else {
		groups, err := openCgroups()
		if err != nil {
			return nil, err
		}
		launch = append(launch, "-cgroups", strings.Join(groups.dirs(c.nodeCgroup(p.node)+"/system"), ","))
	}
	launch = append(append(launch, "--"), p.command...)
	if p.within != "" {
		enter, err := c.enter(p.within)
		if err != nil {
			return nil, err
		}
		launch = append(enter, launch...)
	}
	cmd := exec.CommandContext(ctx, launch[0], launch[1:]...)
	cmd.Env = c.environment()
	cmd.ExtraFiles = p.files
	return cmd, nil
}

// environment is that of every process of the cluster.
func (c *Cluster) environment() []string {
	return []string{
		"PATH=" + c.path("bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
	}
}

// peer is the PID, in this process's numbering, of the process that connected.
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

// startTime is when a process started, as the kernel counts it.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	return parseStartTime(string(stat))
}

// parseStartTime takes field 22 of /proc/PID/stat; field 2 is a name in
// parentheses that may hold anything.
func parseStartTime(stat string) (string, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("unexpected process state %q", stat)
	}
	if fields[0] == "Z" {
		return "", fs.ErrNotExist // dead, only not reaped
	}
	return fields[19], nil
}

// pid is the PID of a process that runs, 0 if it does not.
func (c *Cluster) pid(node, name string) int {
	data, err := os.ReadFile(c.recordFile(node, name))
	if err != nil {
		return 0
	}
	var r record
	if _, err := fmt.Sscan(string(data), &r.pid, &r.start); err != nil {
		return 0
	}
	if started, err := startTime(r.pid); err != nil || started != r.start {
		return 0
	}
	return r.pid
}

// recall finds a cluster whose state was deleted under it (git clean does that):
// its first process is known by the program that it is, which lies in this
// cluster's directory, and by the socket that it reported to.
func (c *Cluster) recall() error {
	if c.pid(ControlPlane, holderName) != 0 {
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
		started, err := startTime(pid)
		if err != nil {
			continue // it has ended
		}
		line, _ := os.ReadFile(file)
		args := strings.Split(string(line), "\x00")
		if args[0] != c.path("bin", holderName) || !slices.Contains(args, c.recordFile(ControlPlane, holderName)+".sock") {
			continue
		}
		if err := c.note(ControlPlane, holderName, record{pid, started}); err != nil {
			return err
		}
	}
	return nil
}

// note keeps who a process is.
func (c *Cluster) note(node, name string, r record) error {
	if err := os.MkdirAll(c.path("run"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(c.recordFile(node, name), fmt.Appendf(nil, "%d %s\n", r.pid, r.start), 0o644)
}

// end kills a process and returns when it is dead; for a holder, when
// everything in its PID namespace is.
func (c *Cluster) end(ctx context.Context, node, name string) error {
	pid := c.pid(node, name)
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
	// From here on the file means this process, if it still is the recorded one.
	if c.pid(node, name) != pid {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s on %s: %w", name, node, err)
	}
	return awaitDeath(ctx, fd, name+" on "+node)
}

// deathLimit is generous: the kernel frees a node's memory and mounts before a
// holder counts as dead.
const deathLimit = 30 * time.Second

func awaitDeath(ctx context.Context, pidfd int, what string) error {
	deadline := time.Now().Add(deathLimit)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		// In slices, so that a cancelled context is noticed.
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
