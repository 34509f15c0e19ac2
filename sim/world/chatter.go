// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"strings"
	"time"
)

// What an agent process may send within any minute, whatever the weather. An agent
// that restarts begins anew: the kubelet's back-off bounds how often.
const (
	// mostOfLease is for each slot. An agent asks twice a second at most, as a holder's
	// retries do, which its clock may count a twelfth too fast: 130. It may ask 20 times
	// at once, where it had nothing to ask for before.
	mostOfLease = 130 + 20
	// mostOfPod is for the pod's own status. Each attempt takes two patches. Of attempts
	// that fail, 7 come while the pauses grow to ten seconds, and one every five seconds
	// then: 19. Something new is tried at once: a hold that ends, and one that begins,
	// show five appearances, and six of them in a minute are many.
	mostOfPod = 2 * (19 + 30)
	// mostOfEvents is for what is told to people: a hold tells of its beginning and its
	// end, of a shim that is silent, of a slot that was not released. As many holds.
	mostOfEvents = 24
)

// minute is the requests of the last minute that are about one thing.
type minute struct{ sent []time.Duration }

// add notes a request, and returns how many there were within a minute.
func (m *minute) add(now time.Duration) int {
	old := 0
	for old < len(m.sent) && m.sent[old] <= now-time.Minute {
		old++
	}
	m.sent = append(m.sent[old:], now)
	return len(m.sent)
}

// count notes a request of an agent, and judges how many there were.
func (c *clientOf) count(op string) {
	if c.pod == nil {
		return
	}
	about, most := op, map[string]int{"patch": mostOfPod, "event": mostOfEvents}[op]
	if _, slot, ok := strings.Cut(op, " "); ok {
		about, most = slot, mostOfLease
	}
	m := c.recent[about]
	if m == nil {
		m = new(minute)
		c.recent[about] = m
	}
	if n := m.add(c.w.now()); n > most {
		c.w.violate(chatter, "an agent of %s sent %d requests about %s within a minute, not %d: in all %v",
			c.pod.name, n, about, most, c.sent)
	}
}
