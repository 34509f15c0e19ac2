// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Nodes returns the names of the workers.
func (l *Lab) Nodes() []string {
	names := make([]string, l.Saved.Workers)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i+1)
	}
	return names
}

// Node returns the node with the name. The control plane has the number 0.
func (l *Lab) Node(name string) (Node, error) {
	if name == ControlPlane {
		return Node{Name: name}, nil
	}
	if i := slices.Index(l.Nodes(), name); i >= 0 {
		return Node{Name: name, Number: i + 1}, nil
	}
	return Node{}, fmt.Errorf("no node %q: there are %s and %s", name, ControlPlane, strings.Join(l.Nodes(), ", "))
}

// Node is a worker, or the control plane, which has the number 0.
type Node struct {
	Name   string
	Number int
}

// Address returns the node's IP address.
func (n Node) Address() string {
	if n.Number == 0 {
		return ControlAddress
	}
	return fmt.Sprintf("10.213.0.%d", 10+n.Number)
}

// Subnet returns the network of the node's pods.
func (n Node) Subnet() string { return fmt.Sprintf("10.214.%d.0/24", n.Number) }

// Link returns the name of the control plane's end of a worker's link.
func (n Node) Link() string { return "v" + n.Name }

// NodeCgroup returns the cgroup that contains a node's pods. The cgroup "system" below that
// cgroup contains the node's daemons.
func (l *Lab) NodeCgroup(name string) string { return l.Cgroup() + "/" + name }

// RecordFile returns the file that identifies a process of a node.
func (l *Lab) RecordFile(node, name string) string { return l.Path("run", node+"-"+name) }

// LogFile returns the file with the output of a process of a node.
func (l *Lab) LogFile(node, name string) string {
	return l.Path("log", node+"-"+name+".log")
}

// Environment returns the environment of every process of the cluster. A dozen daemons of each
// cluster share the machine, and each switch between threads costs much time on a virtual machine.
// So a daemon uses at most a quarter of the processors. A daemon also collects garbage half as
// often as by default.
func (l *Lab) Environment() []string {
	return []string{
		"PATH=" + l.Path("bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"GOMAXPROCS=" + strconv.Itoa(max(1, runtime.NumCPU()/4)),
		"GOGC=200",
	}
}
