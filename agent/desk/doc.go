// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package desk is the agent's end of the contract in agent/gate. A [Server] accepts
// the pod's shims, reports what each shim does, and sends the agent's orders.
//
// # What it guarantees
//
// The server reports a shim dead, or its hold over, only on proof. One proof is the shim's
// report that it has reaped all its descendants ([gate.Waiting] or [gate.Ended], naming
// the hold). The other proof is the end of the shim's process. The end of a connection
// proves nothing, and nothing on disk is a grant. The notes in [GrantedDir] only name
// the granted holds that are not proven over. The server writes the note of a grant
// before it sends the grant.
//
// A slow reader of reports delays no shim, and gets the last report of each.
//
// # Clock
//
// The server reads the clock of its [Machine]: CLOCK_BOOTTIME in the product. That
// clock goes on while the machine is suspended. The server measures a shim's silence
// by that clock, except for the time in which this process itself did not run.
//
// # What it does not guarantee
//
//   - The end of a shim that is not PID 1 of its namespace proves nothing about its
//     descendants. The server reports such a shim dead only if its last message said
//     that nothing lives.
//   - The application can connect to the agent's socket, and could lie about itself.
//     An application cannot lie about other containers' processes where the kernel
//     names the peer (SO_PEERPIDFD, Linux 6.5).
//   - A note is not synced to the disk. If the kernel crashes before it has written
//     a note, the loss is harmless, because the noted shim is dead too.
package desk
