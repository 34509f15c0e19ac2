// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package mutate turns annotations into a gated pod.
//
// Guarantee: a pod that claims a slot gets the gate in front of its containers, or is
// refused with a named reason. A second pass through the webhook changes nothing, so other
// webhooks may run between two passes. The package patches the pod's own bytes by explicit
// operations, so unknown fields stay where they are.
//
// A well-formed workload is never refused. The webhook carries the workload's annotations
// to its pod template, and warns of every reason to refuse its pods.
//
// Not guaranteed: the gate of a pod that never passed the webhook. If the API server does
// not call the webhook (namespace not opted in, configuration deleted), the admission
// policies refuse the pod. Also not guaranteed: the image's stop signal in a container with an
// explicit command. The package reads such an image only if the container has a preStop hook
// and sets no stop signal. Otherwise the shim takes the container's own stop signal, or SIGTERM.
//
// [Inject] gates pods, [Carry] serves workloads, and [Keep] serves updates of pods. Inject and Carry look
// up images, and Inject reads the pod's owners. The parts are packages of their own:
//
//   - feature lists what a gate touches in a pod, judges the pod and patches it;
//   - patch makes the operations, reason names the refusals;
//   - image declares the look-up of an image's command, and image/registry carries out the
//     look-up;
//   - admit answers the API server's calls, and load bounds their memory.
package mutate
