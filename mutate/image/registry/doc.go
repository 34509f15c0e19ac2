// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package registry reads the commands of images from registries. Only this package imports
// go-containerregistry.
//
// Guarantee: an answer is valid for every Linux platform of the image, at the time of the
// look-up. The registry has given that answer to the pod's own credentials. Each look-up
// asks the registry anew for the digest of a tag. The image of a digest never changes, so the
// package caches the image's command, separately for each credential. No pod gets an answer that
// a registry gave only to another pod's secret. The package asks the mirrors of a registry before
// the registry itself, as nodes do. A mirror gets the pod's credentials for that mirror.
//
// Guarantee: the memory, the connections and the time of look-ups are bounded (bounds.go), whatever
// images, secrets and registries contain. No namespace blocks the look-ups of other namespaces. The
// realm of a token service, or a redirect, leads to another host only at a public address. Flags of
// the webhook can allow further addresses, and so does [Options.ByPerson]. Errors for the
// pod's author have no text of a registry.
//
// Clock model: [Options.Budget] bounds the duration of a whole look-up, by this process's
// monotonic clock.
//
// Not guaranteed: that a node runs the same image. A node with pull policy IfNotPresent
// runs an older image that it has under the same tag. Only a digest names one image for
// sure. While a registry does not answer, the package uses the last known digest of a tag, for
// up to an hour. A refusal is an answer, so the package uses no known digest after a refusal.
package registry
