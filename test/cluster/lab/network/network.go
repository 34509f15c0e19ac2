// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package network makes the bridge that all nodes share. The package also makes the link of each
// worker, and reports which links are down.
package network

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// IP runs commands of ip(8) in a node's network namespace.
func IP(ctx context.Context, l *state.Lab, name string, commands ...string) error {
	pid := process.PID(l, name, state.Holder)
	if pid == 0 {
		return fmt.Errorf("node %s is down", name)
	}
	// The program nsenter enters only the node's network namespace, and not its PID namespace. So
	// the argument "commands" may contain PIDs of the host.
	cmd := exec.CommandContext(ctx, "nsenter", "-t", fmt.Sprint(pid), "-n", "--", "ip", "-batch", "-")
	cmd.Env = l.Environment()
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip on %s: %w: %s", name, err, out)
	}
	return nil
}

// Bridge makes the network that all nodes share.
func Bridge(ctx context.Context, l *state.Lab) error {
	return IP(ctx, l, state.ControlPlane,
		"link set lo up",
		"link add br0 type bridge",
		"addr add "+state.ControlAddress+"/24 dev br0",
		"link set br0 up")
}

// Connect links a worker to the bridge. Connect also sets the routes to the pods, both on the
// control plane and on the worker.
func Connect(ctx context.Context, l *state.Lab, n state.Node) error {
	// The kernel may not have removed a crashed node's link yet.
	_ = IP(ctx, l, state.ControlPlane, "link del "+n.Link())
	err := IP(ctx, l, state.ControlPlane,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %d", n.Link(), process.PID(l, n.Name, state.Holder)),
		"link set "+n.Link()+" master br0 up",
		"route replace "+n.Subnet()+" via "+n.Address()+" dev br0 onlink")
	if err != nil {
		return err
	}
	commands := []string{
		"link set lo up",
		"addr add " + n.Address() + "/24 dev eth0",
		"link set eth0 up",
		"route add default via " + state.ControlAddress,
	}
	for _, name := range l.Nodes() {
		if other, _ := l.Node(name); other.Name != n.Name {
			commands = append(commands, "route add "+other.Subnet()+" via "+other.Address())
		}
	}
	return IP(ctx, l, n.Name, commands...)
}

// CutLinks returns whether the link is down, for each worker's link.
func CutLinks(ctx context.Context, l *state.Lab) (map[string]bool, error) {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", fmt.Sprint(process.PID(l, state.ControlPlane, state.Holder)), "-n", "--",
		"ip", "-oneline", "link", "show", "type", "veth")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return parseCutLinks(string(out)), nil
}

// parseCutLinks returns for each link whether the link is down. Each line of the argument "out"
// has this form:
//
//	4: vn1@if2: <BROADCAST,MULTICAST> mtu 1500 …
func parseCutLinks(out string) map[string]bool {
	cut := map[string]bool{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(fields[1], ":"), "@")
		up := false
		for flag := range strings.SplitSeq(strings.Trim(fields[2], "<>"), ",") {
			up = up || flag == "UP"
		}
		cut[name] = !up
	}
	return cut
}
