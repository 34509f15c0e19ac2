// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package sim runs real agents against the faults of package world. The package has no
// code but tests. Package enrolled adds the real enroll.
//
// # Replay
//
// A seed replays its run:
//
//	go test ./sim -run Simulation -seed=K -v
//
// Two runs of a seed differ only in the order in which the Go scheduler runs an agent's
// goroutines within one instant. So the desk sends a grant some microseconds later in one
// run than in the other, and later events differ, too. If a failure does not appear again
// at once, repeat the run with -count=10.
//
// # Planted bugs
//
// The simulation must catch planted bugs. A simulation that misses them would also miss real ones.
// TestPlantedBugsAreCaught plants a bug for each rule, from the files of planted/.
package sim
