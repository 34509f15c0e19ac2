// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
)

// door is one port of a target. While the port refuses connections, a single waiting
// connection dials the port for all others.
type door struct {
	mu      sync.Mutex
	scouted bool
	// waiting has the connections that wait for the method "leave". Then each of them dials once.
	waiting queue
}

// scout returns the door if the caller must dial on behalf of all waiting connections. If
// another connection dials already, scout returns a ticket. The ticket is called when the caller
// must try again. The argument "number" is the caller's place in the order of arrival.
func (d *door) scout(number uint64) (*door, *ticket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.scouted {
		return nil, d.waiting.join(number)
	}
	d.scouted = true
	return d, nil
}

// leave ends the caller's duty to dial on behalf of all. Each waiting connection then dials
// once, even if the port still refuses. A caller without that duty has a nil door.
func (d *door) leave() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scouted = false
	d.waiting.wake()
}
