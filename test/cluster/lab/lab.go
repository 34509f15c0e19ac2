// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package lab runs a real Kubernetes cluster of several nodes on one Linux machine.
// The lab needs no container engine and no outside registry: everything is built
// from Go modules and Debian packages.
//
// # What runs
//
// Node "cp" is the control plane: etcd, API server (apiserver), controller manager
// (kcm) and scheduler. An image registry and two forwarders for clients on the host
// run there, too, and metrics-server (metrics) after [Cluster.AddMetrics]. Each worker (n1,
// n2, …) has containerd with runc, a kubelet and kube-proxy in nftables mode.
// CoreDNS and cert-manager run in pods.
//
// # Where things are
//
// [Cluster] combines the packages below. Imports point downward:
//
//	lab                 Up, Down, Status
//	fault               cut, crash, freeze, kill, and the opposite of each
//	control addons      the control plane; what runs in pods
//	worker              the start of a worker node
//	daemon build        the components and their command lines; their programs
//	network             the bridge and the links
//	process             start, find and end a process
//	cgroup config kubectl
//	state wait          the state directory; waiting
//
// # How the lab is kept apart
//
// The lab's first process runs the program "holder", whose name has nothing to do with
// the holder of a slot. This process is PID 1 of private PID, mount, network, UTS and IPC
// namespaces. A worker has a first process of the same kind, nested in the lab's
// namespaces, with a veth pair to the lab's bridge. The death of a worker's first process
// is the crash of a node. The death of the lab's first process ends everything, and frees
// every mount and link. The host sees processes, one cgroup directory, and two listeners
// on 127.0.0.1. Any number of labs run side by side, each in a state directory of its
// own.
//
//	10.213.0.1       control plane; the registry is 10.213.0.1:5000, plain HTTP,
//	                 and on port 5001 the same with a login, read-only
//	10.213.0.1N      worker nN; its pods are 10.214.N.0/24
//	10.215.0.0/16    services; DNS is 10.215.0.10
//
// All nodes share one kernel, and so one clock, one boot id and one page cache. The
// directory <state>/shared of the host is /var/lib/shared on every worker. Pods on
// different nodes mount this directory by hostPath. So the pods share flocks, and append
// to the same files.
//
// # What the lab is not
//
// The lab is not safe: the programs run as the host's root. A failed node is NotReady
// after 10 s, which is sooner than in production. The lab's network has neither delay nor
// loss: the link of a node is up or down. The cluster has no connection to the outside,
// so images come from its own registry.
package lab

import (
	"context"
	"io"
	"os"
	"os/exec"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/cgroup"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/fault"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/kubectl"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/network"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// Cluster is a cluster whose state is in a directory. The cluster need not be up.
type Cluster struct {
	*state.Lab
	fault.Injector
}

// Open returns the cluster whose state is in dir. An empty dir means the directory that
// METAPARTICLE_CLUSTER_DIR names in the environment. Without this variable, an empty dir means
// .cluster in the repository that contains the working directory.
func Open(dir string) (*Cluster, error) {
	l, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Cluster{Lab: l, Injector: fault.Injector{Lab: l}}, nil
}

// PID returns the process id that a component has on the host; 0 if the component does not run.
func (c *Cluster) PID(name, component string) int { return process.PID(c.Lab, name, component) }

// Log returns the file with the output of a component since the cluster came up.
func (c *Cluster) Log(name, component string) (string, error) {
	if component != state.Holder {
		if _, err := c.Component(name, component); err != nil {
			return "", err
		}
	}
	file := c.LogFile(name, component)
	_, err := os.Stat(file)
	return file, err
}

// Kubectl returns a command that runs the cluster's own kubectl with an administrator's rights.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return kubectl.Command(ctx, c.Lab, args...)
}

// Push puts the image or index of a tarball into the registry under a name such as
// "demo/redis:1". The result is the reference by which a pod names the image. The tarball has
// docker save's format or an OCI layout.
func (c *Cluster) Push(ctx context.Context, tarball, name string) (string, error) {
	if process.PID(c.Lab, state.ControlPlane, "registry") == 0 {
		return "", state.ErrDown
	}
	image, err := oci.Open(tarball)
	if err != nil {
		return "", err
	}
	if err := oci.Push(ctx, c.Registry()+"/"+name, image); err != nil {
		return "", err
	}
	return state.RegistryInCluster + "/" + name, nil
}

// Exec runs a command in a node's namespaces, as a login on the node would.
func (c *Cluster) Exec(ctx context.Context, name string, stdin io.Reader, stdout, stderr io.Writer, command ...string) error {
	enter, err := process.Enter(c.Lab, name)
	if err != nil {
		return err
	}
	words := append(enter, command...)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(c.Environment(), "TERM="+os.Getenv("TERM"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	return cmd.Run()
}

// Users of a cluster need these names, which package state explains.
const (
	KubernetesVersion = state.KubernetesVersion
	ControlPlane      = state.ControlPlane
	SharedMount       = state.SharedMount
	RegistryInCluster = state.RegistryInCluster
	PrivateRegistry   = state.PrivateRegistry
	PrivateUser       = state.PrivateUser
	PrivatePassword   = state.PrivatePassword
)

// ErrDown is the error of a call that needs a running cluster, if the cluster is down.
var ErrDown = state.ErrDown

// Components returns the names that Kill and Start accept for a node.
func Components(node string) []string { return daemon.Components(node) }

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
