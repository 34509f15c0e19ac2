// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package registry reads the commands of images from registries. Only this package imports
// go-containerregistry.
//
// Guarantee: an answer is valid for every Linux platform of the image, at the time of the
// look-up. The registry has shown that answer to the credentials of the pod. Each look-up
// resolves a tag anew. The content of a digest never changes, so the package keeps it, per
// credentials. No pod gets an answer that the registry gave only to another pod's secret. The
// package asks mirrors first, like the nodes, with credentials of their own.
//
// Guarantee: the memory, the connections and the time of look-ups are bounded (bounds.go),
// whatever images, secrets and registries contain. No namespace keeps the others from their
// look-ups. A token realm or a redirect may lead only to public addresses. Errors have no
// text of a registry.
//
// Clock model: one budget bounds the whole of a look-up, in this process's monotonic time.
//
// Not guaranteed: a node may run another image. A node with pull policy IfNotPresent runs
// an older image that it has under the same tag. Only a digest names one image for sure.
// While a registry does not answer, the last digest of a tag counts for an hour. A refusal
// is an answer, so the last digest does not count after it.
package registry
