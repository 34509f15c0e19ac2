// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"sync"
)

// door is one port of a target that refuses connections. One waiting connection dials for
// all others.
type door struct {
	mu      sync.Mutex
	scouted bool
	// opened is closed when the connection that dials leaves the door.
	opened chan struct{}
}

// scout returns the door if the caller is to dial for all. Otherwise scout returns a channel
// that is closed when the caller has to try again.
func (d *door) scout() (*door, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.scouted {
		return nil, d.opened
	}
	d.scouted = true
	return d, nil
}

// leave ends the caller's duty to dial for all. The others try once, whether the port is
// open or not. A caller without a duty has a nil door.
func (d *door) leave() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scouted = false
	close(d.opened)
	d.opened = make(chan struct{})
}
