// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package lab runs a real Kubernetes cluster of several nodes on one Linux
// machine, without a container engine and without an image registry to pull
// from: everything is built from Go modules and Debian packages.
//
// # What runs
//
// Node "cp" is the control plane: etcd, API server (apiserver), controller
// manager (kcm), scheduler, an image registry, two forwarders, the way in from
// the host, and metrics-server (metrics) once it was added. Each worker (n1, n2, …) has containerd
// with runc, a kubelet and kube-proxy in nftables mode. In the cluster run
// CoreDNS and cert-manager.
//
// # How it is kept apart
//
// The lab is one process, its holder, that is PID 1 of private PID, mount,
// network, UTS and IPC namespaces; a worker is a holder of the same kind,
// nested in the lab's, linked to the lab's bridge by a veth pair. Killing a
// worker's holder is the crash of a node; killing the lab's ends everything
// and frees every mount and link. The host sees processes, one cgroup
// directory, and two listeners on 127.0.0.1. Any number of labs run side by
// side, each in a state directory of its own.
//
//	10.213.0.1       control plane; the registry is 10.213.0.1:5000, plain HTTP,
//	                 and on port 5001 the same with a login, read-only
//	10.213.0.1N      worker nN; its pods are 10.214.N.0/24
//	10.215.0.0/16    services; DNS is 10.215.0.10
//
// All nodes share one kernel, so one clock, one boot id and one page cache.
// The directory <state>/shared of the host is /var/lib/shared on every worker:
// pods of different nodes that mount it by hostPath can take each other's file
// locks and append to one record.
//
// # What it is not
//
// Not safe: the programs run as the host's root. Not fast to fail over as a
// product's cluster would be set up, but faster: a node is NotReady after 10 s.
// Not a network with delay or loss: the link of a node is up or down. And the
// cluster reaches nothing outside itself, so images come from its registry.
package lab
