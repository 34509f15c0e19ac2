// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package serve shows slots to browsers: a page, and a stream of server-sent events.
//
// Each stream begins with the state of all slots. Afterwards the stream has the slots that changed.
// A browser that connects again gets the whole state again, so no change is missed. The number of
// streams is bounded, and so is the queue of each stream. A browser that does not keep up is
// dropped, and connects again. The bytes of all slots are bounded, and each namespace has a share
// of them. From a namespace that exceeds its share, the page omits first the earlier handovers, and
// then whole slots. A sentence on the page has the number of omitted slots.
//
// The handler authenticates nobody. The caller listens on the loopback of a pod, and the API server
// decides on each port-forward. The handler answers only requests for a loopback name. So no page
// of another site reads the stream under a name of its own (DNS rebinding).
//
// The page does not guarantee that the shown slots are current. The page shows the slots of the
// caller's last publication.
package serve
