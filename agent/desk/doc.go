// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package desk is the agent's end of the contract in agent/gate. A [Server] accepts
// the pod's shims, reports what each shim does, and sends the agent's orders.
//
// # The guarantee
//
// The server reports that a shim is dead, or that its hold is over, only on proof. One proof is
// the shim's message that it has reaped all its descendants ([gate.Waiting] or [gate.Ended],
// with the hold). The other proof is the end of the shim's process. The end of a connection
// proves nothing, and nothing on disk is a grant. The notes in [GrantedDir] only name granted
// holds that are not proven over. The server writes the note of a grant before it sends the
// grant.
//
// A slow reader of reports delays no shim, and receives the last report of each shim.
//
// # Clocks
//
// The server reads the clock of its [Machine]: CLOCK_BOOTTIME in the product. That
// clock goes on while the machine is suspended. The server measures a shim's silence
// by that clock, except for the time in which this process itself did not run.
//
// # What is not guaranteed
//
//   - If a shim is not PID 1 of its namespace, its end proves nothing about its
//     descendants. The server reports such a shim dead only if its last message
//     reported that no descendant lives.
//   - The application can connect to the agent's socket, and can send false messages
//     as a new shim of any container. The agent may then drain the earlier shim, as
//     after a restart of that container. The new shim gets no grant while the
//     earlier shim may have a child. No file contains the id of a shim, so another
//     process does not learn that id. From Linux 6.9 on, the server also refuses
//     messages with the id of a known shim from any other process.
//   - A note is not synced to the disk. If the kernel crashes before it has written
//     a note, the loss is harmless, because the noted shim is dead too.
package desk
