// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package forward lets a standby answer for the holder: it listens on the
// ports that the application would listen on, and passes each connection on to
// the same port of the holder's pod. Any pod behind a Service can then take
// its requests, and a connection that arrives during a handover is held until
// there is a holder again.
//
// # Guarantees
//
// When [Forwarder.Close] has returned, no port is listened on and no
// connection to one is left: the child can bind them. (One that ended before
// may still be in TIME_WAIT, as after any server's end, so a server that
// cannot be restarted within a minute cannot be started here either.) What
// breaks is never passed on as what ends: a holder's death in the middle of an
// answer, a held connection that found nobody and [Forwarder.Close] are resets
// for the client, not an end of file. What is held is bounded in number and in
// time; above that, connections wait in the kernel's queue.
//
// # Clocks
//
// Timers of this process bound how long a connection is held. Nothing here
// decides who holds.
//
// # What is not guaranteed
//
// Exclusivity: a target is only where bytes go. A former holder may be the
// target until the loop knows better; it answers or it does not. Two standbys
// cannot forward to each other for long, because the target is taken from the
// Lease, and a pod closes its forwarder before it writes itself into one; a
// standby that has not heard yet adds one hop until it has. Source addresses
// are the standby's, not the client's.
package forward
