// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package world surrounds agents and shims with an API server, nodes, kubelets and
// children, in one process and one synctest bubble. The world causes faults, and judges
// all events by invariants (check.go). Packages sim and sim/enrolled play its seeds as tests. Each
// seed plays a story: a scenario that draws workloads, causes faults, and demands that all pods
// recover.
//
// # What is real and what is not
//
// The agent is real: agent.Agent with agent/lease, agent/kube's Lease, and agent/standin for the
// gates "pod" and "readiness". Both ends of the shim's gate are real, too: desk.Server, and the
// state machine of agent/shim with host.Leaps. In the stories of Jobs, of once claims and of Jobs
// with shards, pods with conditions run the real agent/after. In the story of barriers, pods run
// the real agent/barrier. Package sim/enrolled adds enroll.Reconciler. Package sim has a model of
// enroll instead (model.go), because enroll links controller-runtime, which takes minutes to
// compile.
//
// The world models the API server (PUT, GET and watch of one namespace), the network, the
// kubelet, and the kernel beneath desk and shim. The modelled kernel connects desk and shim
// (link.go). The agent's flock, socket and notes are in gate.go. The shim's alarm, processes and
// signals are in machine.go. A frozen shim or agent waits at its next call of that kernel.
//
// # Clocks
//
// True time is the bubble's. Each node has its own clock, up to a twelfth too fast or too
// slow, whose rate changes now and then. The agent and the shims read that clock, and the
// shims' alarms ring by it. The agent's own timers run by true time, because they only
// wake the agent.
//
// A paused machine stands still with its clock, its agents, its shims and its children.
// Some seconds after the machine wakes, its wall clock is set right, and its shims notice
// the leap by host.Leaps. A child that wakes after its slot has expired is excused from
// exclusivity for a bounded time ([lingering]). A child that its shim has frozen
// is excused, too. The world still judges releases, and the tokens of running children.
//
// # Liveness
//
// The times without faults are called quiet times. During a fault the world judges safety and the
// number of requests. After the fault, the world demands that each slot that a pod can acquire is
// in use within a bound. The bound is a sum of parts (bounds.go). The world demands the same under
// the lasting faults of a seed's climate: watches that are cut, refused or mute. A mute watch stays
// open, but carries no event.
//
// # Conditions
//
// Some pods of three stories have conditions (waiter.go). From the states that the server stored
// while such a pod's process ran, the world decides whether the pod may go on (waitcheck.go). After
// the faults, each pod whose keys are done must go on. At the end of the story of Jobs, one pod
// holds until each pod with a condition has gone on. A mute watch delays a pod for 24 minutes at
// most. Only the stories of once claims and of Jobs with shards wait for that time. No pod holds at
// the end of these stories, so no renewals slow the simulation down. For the pods with conditions,
// the model of enroll writes a separate Role. The real enroll reads the pods from the API server
// (package sim/enrolled).
//
// # Programs
//
// In three stories, pods have programs that bid by the local API (localpod.go, bidder.go). The
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
// In a separate story, the number of a workload's shards changes while faults happen (shards.go).
// Pods for different numbers of shards must never hold or run together (shardcheck.go). The model
// of enroll decides by the real package enroll/stamp, and writes over the network (stamping.go).
// A process of that model may believe in another number of shards for a while. Package
// sim/enrolled plays the story with the real enroll.
//
// In another story, Jobs of one name follow each other (mapping.go). Each Job runs each of its
// shards until that shard has succeeded once. Pods of two Jobs never hold or run together. Other
// pods wait until all shards of a Job are done (mapcheck.go). For a while, a process of the model
// may treat an earlier Job as the current Job. In some seeds a person deletes a Job but not its
// pods, or changes the number of shards in the template of a suspended Job.
//
// # Controllers
//
// The controllers of Deployments, ReplicaSets, StatefulSets and DaemonSets are models of their
// source in Kubernetes 1.37 (deployment.go, statefulset.go, daemonset.go). Persons apply versions
// that work, and versions that do not (behaviour.go), scale, undo and delete (changing.go,
// persons.go). The story judges rollouts in times without faults (judge.go). During faults the
// world checks only the invariants of safety. After the faults, the rollout of a good version must
// end. A pod on a node that is cut off keeps its last readiness. No controller acts on the progress
// deadline of a Deployment, so Deployments of the world have no such deadline.
//
// # Random sources
//
// Each actor has a separate random source, made from the seed and the actor's name. So
// an action of one actor changes no draw of another actor. All delays are random to the
// nanosecond, so that no two events happen at one instant by chance.
//
// # What the world does not judge
//
// The world excuses what docs/guarantees.md does not promise. A child is excused from
// exclusivity while it is in uninterruptible sleep. So is a child whose node, container
// or shim is frozen past the deadline. No child is excused from the rule that a release
// needs proof.
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
