// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package mutate turns annotations into a gated pod.
//
// Guarantee: a pod that claims a slot either leaves with the gate in front of
// its containers, or does not get in, with a named [Reason]. Applied to its
// own result the package changes nothing, so other webhooks may come between.
// It patches the pod's own bytes by explicit operations; what this build's Go
// types do not know of stays where it was.
//
// Workloads are never refused. Their annotations are carried to their pod
// templates, and what will be refused at their pods is said as a warning.
//
// Not guaranteed: nothing here holds a pod that never came by. A webhook that
// is not called (namespace not opted in, configuration deleted) is the
// admission policies' business. Nor is the image read for a container that has
// an explicit command: its stop signal is then the one of the pod, or SIGTERM.
//
// A call may come from anybody, and before the API server has validated its object.
// So [Load] bounds the memory of all calls, and answers shorten every name.
//
// [Inject] and [Carry] decide; they do no I/O of their own but ask [Images]
// what an image would run. The handlers are the glue to admission requests.
package mutate
