// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package probe carries out the probes of gated containers, and answers the
// kubelet on their behalf.
//
// # The guarantee
//
// A standby passes every probe of the kubelet, because a standby is alive. The pod's condition
// ([api.ReadyCondition]) shows that the pod does not serve; no Event reports that. Once a child
// has passed its startup probe, and the initial delay of a probe is over, the application
// decides the result. The next section has the one exception. For each child the results are
// counted anew, with the declared thresholds.
//
// The kubelet sees the same status, timeout and error as without a gate, where HTTP permits
// that. The agent redirects the kubelet's liveness probe over HTTP to the application. For other
// probes, the agent probes the application while the kubelet waits, and returns the HTTP status.
// If such a probe fails without an HTTP status, the agent redirects the kubelet to the
// application. Probes of gRPC and of another host are never redirected.
//
// # Which side starts a probe
//
// The kubelet counts a probe's times from the start of a container, but a container may stand by
// for days before its child starts. So the agent itself runs the startup probe. The agent also
// runs the readiness probe until that probe has passed once. The kubelet sends its readiness and
// liveness probes to the agent all the time. From these requests the package learns the results
// of the kubelet's probes.
//
// A strict controller replaces each old pod that is not Ready. In a spared pod of such a
// controller, the kubelet's readiness probe passes until the application has passed the probe
// for the first time ([Child.Spared]).
//
// # What is not guaranteed
//
// The gRPC probe supports only the part of HTTP/2 that one call needs. If a gRPC server answers
// without a message, the probe has failed; the package does not read the grpc-status. If the
// agent does not answer, HTTP probes fail, as if the application did not answer. An exec probe
// for liveness then passes, and one for readiness fails.
//
// Rejected: exec probes in place of network probes, because each probe's process would count
// towards the application's memory; a limit of clients, because the refused client could be the
// kubelet, which takes the refusal for the application's answer; a standby that answers "not
// ready", for which the kubelet would write Events as long as the pod stands by.
package probe
