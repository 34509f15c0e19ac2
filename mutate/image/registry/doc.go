// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package image says what an image would run, from its registry. It is the
// only importer of go-containerregistry.
//
// Guarantee: an answer is what the reference named when it was asked, on every
// Linux platform of the image, and was read with the credentials of whoever
// asks. A tag is resolved anew each time; what a digest says never changes and
// is kept, per credentials: nobody gets what somebody else's secret opened.
// Mirrors are asked first, like the nodes do, and with credentials of their own.
//
// Guarantee: whatever images, secrets and registries say, the memory, the
// connections and the time of look-ups are bounded (bounds.go), and no namespace
// keeps the others from theirs. What a registry leads to, by a token realm or a
// redirect, is asked only at public addresses; errors hold no text of a registry.
//
// Clock model: one budget bounds the whole of a look-up, in this process's
// monotonic time.
//
// Not guaranteed: that a node runs the same image. A node that has an older
// image under the same tag, with pull policy IfNotPresent, runs that one; name
// images by digest to be sure. While a registry is away (but not when it says
// no) a tag counts as what it was last seen to name, for an hour.
package registry
