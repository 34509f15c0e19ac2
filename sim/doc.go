// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package sim runs real agents against simulated faults. The package has no
// code but tests. Package enrolled adds the real enroll.
//
// # Layers
//
// Each package of this list imports only packages that are further up in the list:
//
//	engine     the true time, the mutex, the history, clocks and processes
//	apiserver  the API server, the network to it, and its clients
//	world      nodes, kubelets, pods and programs, and the invariants of all events
//	controller the controllers of Deployments, StatefulSets and DaemonSets
//	story      the workloads, the faults, and what must hold after the faults
//	play       one test for each seed, and the planted bugs
//
// Only apiserver, which serves the agent's client, and the models of world import the agent. Stories and
// checks read what the API server stored and what processes did, so they stay when the agent changes.
//
// # Replay
//
// A seed replays its story:
//
//	go test ./sim -run Simulation -seed=K -v
//
// Two replays of a seed differ in the order in which the Go scheduler runs an agent's
// goroutines within one instant. So the server sends a grant some microseconds later in one
// replay than in the other, and later events differ, too. The pauses between two watches of a
// Variable also differ. If the first replay shows no failure, repeat the command with -count=10.
//
// # Planted bugs
//
// A simulation that misses planted bugs would also miss real bugs. planted/NAME.txtar has a comment that
// states the rule, a line "caught by:" with the invariant, and pairs of texts, "PATH was" and "PATH is",
// which do not overlap with those of another bug. PLANTED in the second text is true while the bug is
// switched on. A line "played by: TEST" or "played by: PACKAGE/TEST" before "caught by:" names the test
// that must catch it, if it is not TestSimulationBreaksNoInvariant. `go test ./sim -run Planted/NAME
// -update` writes the line "first seed:", which later runs play first. Bugs of enroll are in
// enrolled/planted; package sim also plays those of enroll/step.
//
// # Strange faults
//
// TestStrangeAnswersBreakNoInvariant plays the stories with the faults of proxies and broken
// servers. An answer may have an unusual status for one request, or for all requests of one kind.
// A PUT of a Lease may arrive twice, and its sender then gets a conflict. An answer may be
// unreadable, although the request took effect. A watch may repeat an event, or end with 410.
//
// TestScarceResourcesBreakNoInvariant plays the stories with pods that run out of something for a
// while. A full volume takes no note. The kernel refuses to start a child. A full socket takes no
// message. In the stories of Jobs no socket is full: their agents read all the time, so a full
// socket would be an artifact.
//
// TestLastingLatencyBreaksNoInvariant plays barriers of up to 32 pods. Each answer of the API server
// comes late, for the whole story. TestSlowWritesBreakNoInvariant plays a slow etcd. Each write of a
// Lease is stored, but its answer comes after the agent has given up. TestSlowDisksBreakNoInvariant
// plays the stories with an etcd that is slow again and again, for some seconds. Meanwhile each write
// is stored late, often after the agent has given up.
//
// TestLabelsOnLeasesBreakNoInvariant plays the stories with a clerk that labels Leases and next
// Leases again and again. TestForgedBootIDsBreakNoInvariant plays the stories with a forger that
// replaces the boot ids in held Leases.
//
// TestReplacedMachinesBreakNoInvariant plays the stories with machines that are replaced by other
// machines of the same names. The old machine runs on without a network, and its shims enforce
// their deadlines.
//
// TestFaultsAtStoredWritesBreakNoInvariant plays the stories with faults that come just when the API
// server stores the write of an agent. So an agent dies between its acquisition and the grant, for
// example. TestEditsOfLeasesBreakNoInvariant plays the stories with a person who edits Leases by hand,
// as far as the policies admit such edits.
//
// The seeds of all other tests have no such fault, so their random draws stay as they are.
package sim
