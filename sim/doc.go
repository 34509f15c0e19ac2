// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package sim runs real agents against the faults of package world. The package has no
// code but tests. Package enrolled adds the real enroll.
//
// # Replay
//
// A seed repeats what happened:
//
//	go test ./sim -run Simulation -seed=K -v
//
// The seed does so up to the order in which goroutines of one agent run within one
// instant, which is the scheduler's. In some runs a grant leaves some microseconds
// later, with all that follows from that. A failure that does not come back at once is
// repeated with -count=10.
//
// # Planted bugs
//
// A simulation that cannot catch a planted bug is not trusted: TestPlanted plants one
// for each rule, from the files of planted/.
package sim
