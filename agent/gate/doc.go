// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package gate is the contract between an agent and the shims of its pod ([Grant], [Report], [Order]),
// and the agent's end of it. A [Server] accepts the pod's shims, sends the agent's orders, and delivers
// the last report of each shim; a slow reader delays no shim. [Proof] judges from the reports whether a
// hold is over. agent/shim is the other end. The gates of agent/podgate keep the contract for a pod
// without shims. Each instant is CLOCK_BOOTTIME, which goes on in suspend, with the id of its boot.
//
// The server reports that a shim is dead, or that its hold is over, only on proof: the shim's message
// that it has reaped all its descendants ([Waiting] or [Ended], with the hold), or the end of the shim's
// process, which was PID 1 of its namespace. The end of a connection, silence, and a container without a
// shim prove nothing. Nothing on disk is a grant. The notes in [GrantedDir] name the granted holds that are
// not proven over, and each note is written before its grant is sent.
//
// A hold is proven over ([Proof.Proven]) if every shim that may have had a child of it is. Of the grants
// of an earlier agent process this process knows only what the fresh shim of each container says: if its
// report has no Unproven hold, the earlier shims have no child. Until a shim of each gated container has
// reported, nothing is proven. An init container that has succeeded gets no fresh shim; there the notes
// decide. A doubt outlives the shim that reported it, and an expired hold without proof stays unproven.
//
// Each end refuses, as a whole, a message that a correct sender would never send ([DecodeMessage],
// [DecodeOrder]). But a message does not prove its sender: the application can connect to the agent's
// socket as a new shim of any container. The agent may then drain the earlier shim, as after a restart of
// that container; the new shim gets no grant while the earlier one may have a child. No file contains the
// id of a shim, and from Linux 6.9 on the server refuses a known id from another process.
//
// A note is not synced to the disk. If the kernel crashes first, the noted shim is dead, too.
package gate
