// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command node has the programs that the test cluster needs besides Kubernetes. These are the image
// registry, the pause container and the forwarder for clients on the host. Two more programs are
// the first process of a node's namespaces, and the launcher of the node's daemons. The name by
// which the command is called, or the first argument, selects the program.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

func main() {
	program, args := filepath.Base(os.Args[0]), os.Args[1:]
	if program == "node" && len(args) > 0 {
		program, args = args[0], args[1:]
	}
	if err := run(program, args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

func run(program string, args []string) error {
	switch program {
	case "launch":
		return launch(args)
	case "daemon":
		return daemon(args)
	case "holder":
		return holder(args)
	case "pause":
		pause()
		return nil
	case "registry":
		return serveRegistry(args)
	case "forward":
		return forward(args)
	}
	return fmt.Errorf("unknown program")
}

// forward accepts connections from a listener, and forwards them to an address. The process
// inherits the listener as file 3:
//
//	forward ADDRESS
//
// The listener belongs to the host's network namespace, in which another process opened it. The
// process itself runs in the cluster's network namespace, so its outgoing connections belong to
// the cluster. The process ends with the cluster.
func forward(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: forward ADDRESS")
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return fmt.Errorf("inherit listener: %w", err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go join(conn.(*net.TCPConn), args[0])
	}
}

// join copies bytes in both directions until both ends have finished.
func join(host *net.TCPConn, address string) {
	defer host.Close()
	dialed, err := new(net.Dialer).DialContext(context.Background(), "tcp", address)
	if err != nil {
		// The server is down, so join only closes the caller's connection.
		return
	}
	inner := dialed.(*net.TCPConn)
	defer inner.Close()
	var both sync.WaitGroup
	both.Go(func() { pipe(inner, host) })
	both.Go(func() { pipe(host, inner) })
	both.Wait()
}

func pipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		// If one direction fails, pipe closes both connections immediately.
		_ = to.Close()
		_ = from.Close()
		return
	}
	_ = to.CloseWrite()
}

// launch starts a daemon and ends. So the first process of launch's PID namespace becomes the
// parent of the daemon:
//
//	launch [-unshare] -report SOCKET -log FILE [-cgroups DIR,DIR] [-inherit N] -- COMMAND…
//
// The caller starts launch in the right namespaces (nsenter). With -unshare the daemon gets new
// namespaces. With -inherit the daemon gets the first N open files, from number 3 on.
func launch(args []string) error {
	flags := flag.NewFlagSet("launch", flag.ContinueOnError)
	unshare := flags.Bool("unshare", false, "start in new namespaces of every kind but user and cgroup")
	report := flags.String("report", "", "socket that learns of the daemon's start")
	log := flags.String("log", "", "file that gets the daemon's output")
	cgroups := flags.String("cgroups", "", "cgroup directories to run in, separated by commas")
	inherit := flags.Int("inherit", 0, "open files to pass on, from number 3")
	if err := flags.Parse(args); err != nil {
		return err
	}
	out, err := os.OpenFile(*log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	// In a namespace whose own /proc is not mounted yet, /proc/self/exe may lead to another
	// process's program.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	socket := *report
	if *unshare {
		// With -unshare, the started command is the program "holder". That program itself reports
		// to the socket, once its namespaces are ready.
		socket = ""
	}
	cmd := exec.CommandContext(context.Background(), self, append([]string{"daemon", socket, *cgroups}, flags.Args()...)...)
	cmd.Args[0] = "node"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if *unshare {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC
	}
	for i := range *inherit {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(3+i), "inherited"))
	}
	return cmd.Start()
}

// daemon joins its cgroups, and connects to the socket. The process at the other end gets the PID
// of this process from the kernel, and notes the PID. Then daemon becomes the command.
func daemon(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: daemon SOCKET CGROUPS COMMAND…")
	}
	socket, cgroups, command := args[0], args[1], args[2:]
	for dir := range strings.SplitSeq(cgroups, ",") {
		if dir == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	// A cluster that was started from a niced shell must not be slow. Without the right to change
	// the priority, the daemon keeps that of the shell.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 0)
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	if socket != "" {
		if err := announce(socket); err != nil {
			return err
		}
	}
	return syscall.Exec(path, command, os.Environ())
}

// announce reports this process to the socket and waits for the answer.
func announce(socket string) error {
	conn, err := new(net.Dialer).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return fmt.Errorf("report start: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("wait until the start is noted: %w", err)
	}
	return nil
}
