// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package proxy lets a standby accept connections on behalf of the holder. The
// standby listens on the application's ports, and forwards each connection to the
// same port of the holder's pod. So any pod behind a Service can take requests. A
// connection that arrives during a handover waits until there is a new holder. Datagrams (UDP) pass
// through a flow for each client, with a socket of its own to the holder.
//
// # Guarantees
//
// After [Forwarder.Close] no port is open and no connection is left, so the child
// can bind the ports. As after the end of any server, earlier connections may still be
// in TIME_WAIT for a minute. An application that cannot bind such a port has to wait a
// minute at each restart, with or without a forwarder. A failure never looks like a regular
// end. So the client gets a reset, not an end of file, if the holder dies during an
// answer. A waiting connection that finds no holder also gets a reset, and so does every
// connection at [Forwarder.Close]. The number of waiting connections, and the time of each wait,
// are bounded. Further connections wait in the kernel's queue. Datagrams wait in the buffer of the
// port's socket, and the kernel drops those for which the buffer has no room.
//
// Before its end, a standby lingers. [Forwarder.Linger] accepts connections for a while, because
// nodes learn late that the pod ends. Each new connection proves that a node still routes to the pod,
// and so begins the while anew. Then the forwarder relays the open connections until they end.
//
// # Memory
//
// The kernel moves the data by splice(2), so the data bypasses this process. Where splice
// is missing, the process copies. A slow receiver holds its sender back: the package buffers
// no more than one pipe for each direction. An idle connection has two sockets,
// two goroutines with the smallest stacks, and no pipe. `go test -bench Memory
// ./agent/proxy` prints the memory of 10,000 idle connections: 7.5 KB each. The kernel
// charges the container another 7.5 KB each. [Config.MaxOpen] bounds both. A flow of datagrams has one
// socket and one goroutine, and no buffer while nothing arrives: 6.3 KB. If there are [Config.MaxFlows]
// flows, the one that was idle for longest ends, and its client's next datagram begins another one.
//
// # Clocks
//
// Timers of this process bound how long a connection waits. The package does not decide which
// pod holds. [Forwarder.Unanswered] delivers the address of a target that does not answer.
//
// # What is not guaranteed
//
// Exclusivity: a target is only the address to which bytes go. A former holder may stay the
// target until the agent sees the new one. Two standbys do not forward to each other for long:
// the target comes from the Lease, and a pod closes its forwarder before it acquires. If a
// standby has not seen the newest Lease, a connection may pass through one more pod until the
// next event of the standby's watch. The application sees the standby's address, not the
// client's.
package proxy
