// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// holder runs the first process of a node's namespaces. When this process is killed,
// the kernel kills every process in the namespaces, and frees their mounts and network
// links.
//
//	holder -report SOCKET -hostname NAME [-bind FROM:TO,…] [-shared DIR]
func holder(args []string) error {
	flags := flag.NewFlagSet("holder", flag.ContinueOnError)
	report := flags.String("report", "", "socket that learns when the namespaces are ready")
	hostname := flags.String("hostname", "", "host name")
	binds := flags.String("bind", "", "FROM:TO pairs of directories to mount, separated by commas")
	shared := flags.String("shared", "", "directory whose mounts containers share")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := prepare(*hostname, *binds, *shared); err != nil {
		return err
	}
	if err := announce(*report); err != nil {
		return err
	}
	// The signals of a terminal or of a session's end must not end this process. Only SIGKILL ends
	// this process.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	reap(nil)
	return nil
}

// prepare sets up the Linux namespaces of this process as on a freshly started machine: the host
// name, the mounts, and routing.
func prepare(hostname, binds, shared string) error {
	if err := syscall.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	// The mounts of these namespaces must not appear on the host. New mounts of the host must not
	// appear in these namespaces.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	// Routing is off in a new network namespace, so the first write switches routing on. The second
	// write lets kube-proxy's rules see the traffic between pods of one node. Without a certain
	// kernel module (br_netfilter) the second file does not exist.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for pair := range strings.SplitSeq(binds, ",") {
		from, to, ok := strings.Cut(pair, ":")
		if !ok {
			continue
		}
		if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", from, to, err)
		}
	}
	if shared == "" {
		return nil
	}
	if err := os.MkdirAll(shared, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(shared, shared, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", shared, err)
	}
	if err := syscall.Mount("", shared, "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share %s: %w", filepath.Clean(shared), err)
	}
	return nil
}

// pause waits for a stop signal. The pause container runs only this function, and so keeps a pod's
// namespaces alive.
func pause() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
	reap(told)
}

// reap reaps dead orphans until a signal arrives on the channel. With a nil channel, reap never
// returns.
func reap(told <-chan os.Signal) {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
		select {
		case <-children:
		case <-told:
			return
		}
	}
}
