// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault injects faults into a cluster that is up, and repairs the faults: a cut link, a
// crash, a freeze, a killed component.
//
// A process cannot tell an injected fault from a real one. Only the opposite call, or
// the end of the cluster, repairs a fault.
package fault
