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
// Only the scheduler's order of an agent's goroutines within one instant may differ. So
// in some runs a grant leaves some microseconds later, and later events differ, too. If
// a failure does not come back at once, repeat the run with -count=10.
//
// # Planted bugs
//
// A simulation that cannot catch a planted bug is not trusted. TestPlantedBugsAreCaught plants a bug
// for each rule, from the files of planted/.
package sim
