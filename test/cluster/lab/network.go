// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// ip runs commands of ip(8) in a node's network namespace.
func (c *Cluster) ip(ctx context.Context, name string, commands ...string) error {
	pid := c.pid(name, holderName)
	if pid == 0 {
		return fmt.Errorf("node %s is down", name)
	}
	// Only the network is entered, so PIDs in the commands are the host's.
	cmd := exec.CommandContext(ctx, "nsenter", "-t", fmt.Sprint(pid), "-n", "--", "ip", "-batch", "-")
	cmd.Env = c.environment()
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip on %s: %w: %s", name, err, out)
	}
	return nil
}

// makeBridge makes the network that all nodes share.
func (c *Cluster) makeBridge(ctx context.Context) error {
	return c.ip(ctx, ControlPlane,
		"link set lo up",
		"link add br0 type bridge",
		"addr add "+controlAddress+"/24 dev br0",
		"link set br0 up")
}

// link is the lab's end of a worker's link.
func (n node) link() string { return "v" + n.Name }

// connect plugs a worker in, and tells it and the control plane where pods are.
func (c *Cluster) connect(ctx context.Context, n node) error {
	// The kernel removes a dead node's link in its own time.
	_ = c.ip(ctx, ControlPlane, "link del "+n.link())
	err := c.ip(ctx, ControlPlane,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %d", n.link(), c.pid(n.Name, holderName)),
		"link set "+n.link()+" master br0 up",
		"route replace "+n.subnet()+" via "+n.address()+" dev br0 onlink")
	if err != nil {
		return err
	}
	commands := []string{
		"link set lo up",
		"addr add " + n.address() + "/24 dev eth0",
		"link set eth0 up",
		"route add default via " + controlAddress,
	}
	for _, name := range c.Nodes() {
		if other, _ := c.node(name); other.Name != n.Name {
			commands = append(commands, "route add "+other.subnet()+" via "+other.address())
		}
	}
	return c.ip(ctx, n.Name, commands...)
}
