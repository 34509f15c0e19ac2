// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package probe carries out the probes of gated containers, and answers the
// kubelet for them.
//
// # The guarantee
//
// A standby passes every probe: it is not dead, and that it does not serve is
// said by the pod's condition, which costs no Event. Once a child runs, what
// the kubelet hears is the application's own word: it is sent on to the
// application where that is possible, so that status, timeout and error are
// what they were without us; else the application is asked while the kubelet
// waits. Each child counts anew, with the thresholds as declared.
//
// # Who drives what
//
// The kubelet counts from the start of a container, and a container may stand
// by for days before its child starts. So the startup probe is driven here, and
// so is the readiness probe until it has passed once. From then on, and for
// liveness always, the kubelet drives, and this package learns from its calls.
//
// # What is not guaranteed
//
// A client of HTTP/2 as net/http is one: what a gRPC probe needs of it is
// written here, a server that answers without a message has failed, and its
// grpc-status is not read. An agent that does not answer is a failed probe by
// HTTP, as an application that does not; exec probes take it for a pass.
package probe
