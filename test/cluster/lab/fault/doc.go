// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault breaks the nodes of a cluster that is up, and repairs them: a cut
// link, a crash, a freeze, a killed component.
//
// A process cannot tell an injected fault from a real one. Only the opposite call, or
// the end of the cluster, repairs a fault.
package fault
