// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package world surrounds agents and shims in the simulation with an API server, nodes,
// kubelets and children. All are in one process and one synctest bubble. The world is
// out to break the agents, and judges what happens by invariants (check.go). Packages
// sim and sim/enrolled play its seeds as tests.
//
// # What is real and what is not
//
// Real: agent.Agent with agent/lease, agent/kube's Lease, agent/standin (the gates "pod"
// and "readiness"), and both ends of the gate: desk.Server, and the states of agent/shim with host.Leaps. Package sim/enrolled adds
// enroll.Reconciler; package sim has a model of enroll instead (model.go), because
// enroll links controller-runtime, which takes minutes to compile.
//
// Modelled: the API server (PUT, GET and watch of one namespace), the network, the
// kubelet with what each gate asks of it, and the kernel beneath both ends: the connection between them (link.go), the
// agent's lock, socket and notes (gate.go), and what a shim runs on (machine.go): its
// alarm, its processes and their signals. A shim or an agent that is frozen stands still
// where it next asks that kernel for something.
//
// # Clocks
//
// True time is the bubble's. Each node has a clock of its own, up to a twelfth too
// fast or too slow (the clock is slewed now and then). The agent and the shims read
// that clock, and the shims' alarms ring by it. (The agent's own timers run by true
// time: they only wake it.)
//
// A machine that is paused from outside stands still with its clock, and so do the agents, shims
// and children on it. Within seconds of its waking its wall clock is set right, which its shims
// notice by host.Leaps. A child that wakes after its slot has run out is excused from
// exclusivity until then (lingering), and while it is frozen. Releases, and the tokens of
// running children, are judged as ever.
//
// # Liveness
//
// While something is wrong for a time, safety and the number of requests are judged.
// When that is over, each slot that a pod can have is in use within a bound that is a
// sum of parts (bounds.go). Lasting faults (watches that are cut, refused or silent)
// are a seed's climate, with the same demands.
//
// # Dice
//
// Each actor has a separate random source, made from the seed and the actor's name. So
// an action of one actor changes no draw of another. All delays are random to the
// nanosecond, so that chance never orders two events of one instant.
//
// # What the world does not judge
//
// The world excuses what docs/guarantees.md does not promise. A child whose node,
// container or shim is frozen past the deadline is excused from exclusivity, and so is
// a child in uninterruptible sleep. No child is excused from the rule that a release
// needs proof.
//
// An application of the gate "pod" is excused in two cases. Its agent is dead, frozen or
// stopping when all containers have to be restarted; or its node is frozen until the
// application ought to be dead. The world's kubelet takes 1.5 s at most to kill all
// containers, and restarts nothing in a deleted pod.
//
// An endpoint of the gate "readiness" is a pod that is stored as Ready. An endpoint whose
// slot has run out is excused as long as its pod cannot store otherwise.
package world
