// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Status is what there is and how it does.
type Status struct {
	Up                bool         `json:"up"`
	Kubernetes        string       `json:"kubernetes"`
	Kubeconfig        string       `json:"kubeconfig"`
	Kubectl           string       `json:"kubectl"`
	Registry          string       `json:"registry"`
	RegistryInCluster string       `json:"registryInCluster"`
	Shared            string       `json:"shared"`
	SharedMount       string       `json:"sharedMount"`
	Nodes             []NodeStatus `json:"nodes"`
}

// NodeStatus is how a node does, the control plane first among them.
type NodeStatus struct {
	Name       string         `json:"name"`
	Address    string         `json:"address"`
	State      string         `json:"state"`      // up, down, cut or frozen
	Components map[string]int `json:"components"` // PIDs on the host; 0 does not run
}

// Status looks at the processes, links and cgroups; it asks nobody.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	if err := c.load(); err != nil {
		return Status{}, err
	}
	if c.pid(ControlPlane, holderName) == 0 {
		return Status{}, nil
	}
	groups, err := openCgroups()
	if err != nil {
		return Status{}, err
	}
	cut, err := c.cutLinks(ctx)
	if err != nil {
		return Status{}, err
	}
	status := Status{
		Up: c.complete(), Kubernetes: c.state.Kubernetes,
		Kubeconfig: c.Kubeconfig(), Kubectl: c.path("bin", "kubectl"),
		Registry: c.Registry(), RegistryInCluster: RegistryInCluster,
		Shared: c.SharedDir(), SharedMount: SharedMount,
	}
	for _, name := range append([]string{ControlPlane}, c.Nodes()...) {
		n, err := c.node(name)
		if err != nil {
			return Status{}, err
		}
		node := NodeStatus{Name: name, Address: n.address(), State: "up", Components: map[string]int{}}
		switch {
		case c.pid(name, holderName) == 0:
			node.State = "down"
		case groups.isFrozen(c.nodeCgroup(name)):
			node.State = "frozen"
		case cut[n.link()]:
			node.State = "cut"
		}
		for _, component := range c.components(name) {
			node.Components[component] = c.pid(name, component)
		}
		status.Nodes = append(status.Nodes, node)
	}
	return status, nil
}

// cutLinks are the names of the workers' links that are down.
func (c *Cluster) cutLinks(ctx context.Context) (map[string]bool, error) {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", fmt.Sprint(c.pid(ControlPlane, holderName)), "-n", "--",
		"ip", "-oneline", "link", "show", "type", "veth")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return parseCutLinks(string(out)), nil
}

// parseCutLinks reads lines such as
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
