// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package mutate turns annotations into a gated pod.
//
// Guarantee: a pod that claims a slot gets the gate in front of its containers, or does not
// get in, with a named reason. Applied to its own result the package changes nothing, so
// other webhooks may come between. The package patches the pod's own bytes by explicit
// operations, so unknown fields stay where they are.
//
// Workloads are never refused. The webhook carries their annotations to their pod
// templates, and warns of everything that their pods would be refused for.
//
// Not guaranteed: the package holds no pod that never passed the webhook. If the API server
// does not call the webhook (namespace not opted in, configuration deleted), the admission
// policies refuse the pod. The package does not read the image of a container with an
// explicit command. The shim then takes the stop signal of the pod, or SIGTERM.
//
// [Inject] gates pods, [Carry] serves workloads, and [Keep] serves updates of pods. They do
// no I/O of their own but look images up. The parts are packages of their own:
//
//   - feature is the list of what a gate touches in a pod, and judges and patches;
//   - patch makes the operations, reason names the refusals;
//   - image asks for the command of an image, and image/registry answers;
//   - admit answers the API server's calls, and load bounds their memory.
package mutate
