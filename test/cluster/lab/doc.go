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
