// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package world surrounds agents and shims with nodes, kubelets and children, in one process and
// one synctest bubble. The true time is in package engine, and the API server in package apiserver.
// The world judges all events by invariants (check.go). Package story draws the workloads of a
// seed, causes faults, and demands that all pods recover.
//
// # What is real and what is not
//
// The agent is real: agent.Agent with agent/lease, agent/kube's Lease, and agent/podgate for the
// gates "pod" and "readiness". Both ends of the shim's gate are real, too: gate.Server, and the
// state machine of agent/shim with host.Leaps. In the stories of Jobs, of once claims and of Jobs
// with shards, pods with conditions run the real agent/wait. In the story of barriers, pods run
// the real agent/wait. Package sim/enrolled adds enroll.Reconciler. The world has a model of
// enroll (model.go), because enroll links controller-runtime, which takes minutes to compile. The
// real enroll reads the objects of pods (podobject.go).
//
// The world models the kubelet, and the kernel beneath server and shim. The modelled kernel connects
// server and shim (link.go). The agent's flock, socket and notes are in gate.go. The shim's alarm,
// processes and signals are in machine.go. A frozen shim or agent waits at its next call of that
// kernel.
//
// # Supporters
//
// The agents of pods that support each other speak over a network of their own (channel.go), with faults of its
// own: lost and slow messages, a node that does not reach another one, and a node that does not reach the API
// server but all other nodes.
//
// # Clocks
//
// Each node has its own clock, up to a twelfth too fast or too slow, whose rate changes now and
// then. The agent and the shims read that clock, and the shims' alarms ring by it. The agent's own
// timers run by true time, because they only wake the agent.
//
// A paused machine stands still with its clock, its agents, its shims and its children.
// Some seconds after the machine wakes, its wall clock is set right, and its shims notice
// the leap by host.Leaps. A child that wakes after its slot has expired is excused from
// exclusivity for a bounded time ([MostUnfrozen]). A child that its shim has frozen
// is excused, too. The world still judges releases, and the tokens of running children.
//
// A machine may be replaced by another machine with the same name (replace.go). The other machine
// runs the same pods with the same identities. Their volumes are empty, or are copies of the old
// volumes if each pod may have a kernel of its own. The old machine and its children run on
// without a network, and the world judges these children like all others.
//
// # Conditions
//
// Some pods of three stories have conditions (waiter.go). From the states that the server stored
// while such a pod's process ran, the world decides whether the pod may go on (waitcheck.go). For
// the pods with conditions, the model of enroll writes a separate Role. The real enroll reads the
// pods from the API server (package sim/enrolled).
//
// # Programs
//
// In some stories, pods have programs that bid by the local API (localpod.go, bidder.go). The
// agent's process runs the real agent/local, and a program calls the handler of that server without
// a network. Some pods claim the same slots by annotation. Each line of an answer names the instant
// until which the line is good, on the clock of the machine. At that instant the program stops its
// work, unless a later line is good for longer. So a line that a program reads late, because the
// program stood still, prolongs no work by mistake.
//
// A program that stands still is excused from exclusivity until it reads its clock again. After a
// pause of its machine, a program is also excused until the first answer that follows the
// correction of the wall clock.
//
// # Shards
//
// Pods for different numbers of shards must never hold or run together (shardcheck.go). The model
// of enroll decides by the real package enroll/step, and writes stamps over the network (model.go).
// Only a process of the model can be confused: it believes in another number of shards for a while.
//
// # What the world does not judge
//
// The world excuses what docs/guarantees.md does not promise. A child is excused from exclusivity
// while it is in uninterruptible sleep. A child is also excused if its node, container or shim is
// frozen past the deadline. No child is excused from the rule that a release needs proof.
//
// An application of the gate "pod" is excused from exclusivity in two cases. In the first case, its
// agent is dead, frozen or stopping when all containers have to be restarted. In the second case,
// its node is frozen at the instant by which the application must be dead. The world's kubelet
// takes 1.5 s at most to kill all containers, and restarts nothing in a deleted pod.
//
// With the gate "readiness", the world judges a pod as a child (named "endpoint-N") while
// the pod's stored status is Ready. After its slot has expired, this child is excused while
// the pod cannot store its status.
package world
