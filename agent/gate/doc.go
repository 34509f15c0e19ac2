// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package gate is the contract between an agent and the shims of its pod: the [Grant],
// the [Report], and the messages of both ends. agent/desk is the agent's end, and
// agent/shim is the other end. The stand-ins of agent/standin keep the contract for a
// pod without shims.
//
// # The guarantee
//
// Each end refuses, as a whole, a message that a correct sender would never send
// ([DecodeMessage], [DecodeOrder]). No sum of durations in an accepted message overflows. A
// container's name in an accepted message is safe as the name of a file.
//
// # Clocks
//
// Every instant in the contract is CLOCK_BOOTTIME, as the time since boot. That
// clock goes on while the machine is suspended, and all containers of one kernel
// read the same clock. Each deadline comes with a boot id, because the clock starts at
// zero with each boot. This package reads no clock.
//
// # What is not guaranteed
//
// A message does not prove its sender. So agent/desk relies on the kernel, which
// names the peer of a connection.
package gate
