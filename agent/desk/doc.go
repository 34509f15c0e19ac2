// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package desk is the agent's end of the contract in agent/gate. A [Server] accepts
// the pod's shims, reports what each shim does, and sends the agent's orders.
//
// # What it guarantees
//
// The server reports a shim dead, or its hold over, only on proof. One proof is the
// shim's word that it reaped everything ([gate.Waiting] or [gate.Ended], naming the
// hold). The other proof is the end of the shim's process. The end of a connection proves nothing, and nothing on disk is a
// grant; the notes in [GrantedDir] only say what is not yet proven. A grant leaves
// only after its note was written.
//
// A slow reader of reports holds up no shim, and sees the last report of each.
//
// # Clock
//
// The server reads the clock that [Machine] hands in, CLOCK_BOOTTIME in the product.
// That clock goes on while the machine is suspended. A shim's silence is counted by that clock,
// but for the time in which this process did not run itself.
//
// # What it does not guarantee
//
//   - The end of a shim that is not PID 1 of its namespace proves nothing about its
//     descendants. The server reports such a shim dead only if its last word was
//     that nothing lives.
//   - The application shares the socket with its shim and could lie about
//     itself. An application cannot lie about other containers' processes where the
//     kernel names the peer (SO_PEERPIDFD, Linux 6.5).
//   - A note is not synced to the disk. Its subject does not outlive the kernel whose
//     page cache holds the note.
package desk
