// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/cgroup"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/network"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// Status describes the nodes of a cluster and the state of each.
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

// NodeStatus describes a node. In a [Status] the control plane is the first node.
type NodeStatus struct {
	Name       string         `json:"name"`
	Address    string         `json:"address"`
	State      string         `json:"state"`      // up, down, cut or frozen
	Components map[string]int `json:"components"` // PIDs on the host; 0 if a component does not run
}

// Status reads the processes, links and cgroups of the host, and sends no request.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	if err := c.Load(); err != nil {
		return Status{}, err
	}
	if process.PID(c.Lab, state.ControlPlane, state.Holder) == 0 {
		return Status{}, nil
	}
	groups, err := cgroup.Open()
	if err != nil {
		return Status{}, err
	}
	cut, err := network.CutLinks(ctx, c.Lab)
	if err != nil {
		return Status{}, err
	}
	status := Status{
		Up: c.complete(), Kubernetes: c.Saved.Kubernetes,
		Kubeconfig: c.Kubeconfig(), Kubectl: c.Path("bin", "kubectl"),
		Registry: c.Registry(), RegistryInCluster: state.RegistryInCluster,
		Shared: c.SharedDir(), SharedMount: state.SharedMount,
	}
	for _, name := range append([]string{state.ControlPlane}, c.Nodes()...) {
		n, err := c.Node(name)
		if err != nil {
			return Status{}, err
		}
		node := NodeStatus{Name: name, Address: n.Address(), State: "up", Components: map[string]int{}}
		switch {
		case process.PID(c.Lab, name, state.Holder) == 0:
			node.State = "down"
		case groups.IsFrozen(c.NodeCgroup(name)):
			node.State = "frozen"
		case cut[n.Link()]:
			node.State = "cut"
		}
		for _, component := range daemon.Of(c.Lab, name) {
			node.Components[component] = process.PID(c.Lab, name, component)
		}
		status.Nodes = append(status.Nodes, node)
	}
	return status, nil
}
