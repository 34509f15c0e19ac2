// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import "time"

// Chatter is the name of an invariant. A violation means that an agent sends too many requests
// within a minute, or that in times without faults the agent sends anything but renewals.
const Chatter = "chatter"

// These constants bound the requests that an agent process may send within any minute, whatever
// request faults happen. After a restart the agent may send as many requests again, but the kubelet's
// back-off bounds the restarts.
const (
	// mostOfLease bounds the requests for one slot in a minute. In the long run an agent sends at
	// most two requests a second. So it sends 120 a minute, or 130 if its clock is a twelfth too
	// fast. After a time with few requests an agent may send 20 more in one burst. The same bound
	// applies to the reads of the pod, which are rarer.
	mostOfLease = 130 + 20
	// mostOfPod bounds the patches of the pod's own status in a minute. An attempt takes two
	// patches. At most 19 attempts fail: 7 while the pauses grow, and then one every five
	// seconds, which is 12. At most 30 attempts write a new status: five between two holds,
	// with six holds a minute.
	mostOfPod = 2 * (19 + 30)
	// mostOfEvents bounds the Events. Each of the six holds in a minute may have four: its
	// beginning, its end, a silent shim, and an unreleased slot.
	mostOfEvents = 24
	// mostOfWait bounds the requests about one Lease that a pod with conditions sends. A look takes
	// two requests: a read and a watch. After a watch of 10 s the pauses between looks begin at 250
	// ms again, and grow. Three failures after each such watch cause the most looks: four looks in
	// 13.75 s. A minute is shorter than five such periods. Six looks come on top, because the
	// pauses are also short when the wait for each condition begins.
	mostOfWait = 2 * (5*4 + 6)
)

// minute has the instants of one client's requests in the last minute. All these requests are of
// one sort: about one slot, reads of the pod, patches, or Events.
type minute struct{ sent []time.Duration }

// add notes a request, and returns the number of requests of the last minute.
func (m *minute) add(now time.Duration) int {
	old := 0
	for old < len(m.sent) && m.sent[old] <= now-time.Minute {
		old++
	}
	m.sent = append(m.sent[old:], now)
	return len(m.sent)
}
