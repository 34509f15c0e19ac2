// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package probe carries out the probes of gated containers, and answers the
// kubelet on their behalf.
//
// # The guarantee
//
// A standby passes every probe, because a standby is alive. The condition of the pod shows,
// without an Event, that the pod does not serve. Once a child has passed its startup probe, the
// application answers the kubelet's probes after their initial delays, with one exception
// (below). Where possible, the agent redirects the kubelet to the application, so that status,
// timeout and error are the same as without a gate. If no redirect is possible, the agent
// probes the application while the kubelet waits. For each child the results are counted anew,
// with the declared thresholds.
//
// # Which side starts a probe
//
// The kubelet counts from the start of a container, but a container may stand by
// for days before its child starts. So the agent runs the startup probe, and the
// readiness probe until it has passed once. From then on the kubelet runs the
// readiness probe. The kubelet always runs the liveness probe. The package learns the
// results of the kubelet's probes from the kubelet's requests.
//
// A strict controller replaces each old pod that is not Ready. In a proven pod of such a
// controller, the kubelet's readiness probe passes until the application has passed the probe
// for the first time ([Child.Spared]).
//
// # What is not guaranteed
//
// The gRPC probe supports only the part of HTTP/2 that one call needs. If a gRPC server answers
// without a message, the probe has failed; the package does not read its grpc-status. If the
// agent does not answer, HTTP probes fail, as if the application did not answer. An exec probe
// for liveness then passes, and one for readiness fails.
package probe
