// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import "time"

const (
	// causedBurst bounds the Events that an application can cause at once. The kubelet has the same bound
	// for its Events about one object.
	causedBurst = 25
	// causedPause is the least average time between two further Events that an application causes. The
	// API server keeps an Event for an hour, and an Event has a few kilobytes at most. So the
	// application of one pod fills less than a megabyte of etcd. The kubelet has a pause of 5 min. An
	// agent has a shorter pause, because several containers of its pod share this pace.
	causedPause = time.Minute
)

// pace bounds the Events that the application causes.
type pace struct {
	// paid is the instant from which another Event keeps the rate of causedPause without a burst.
	// Each Event moves this instant by causedPause.
	paid time.Duration
}

// spend counts an Event that the application causes. The result is false if the pace forbids that Event now.
func (p *pace) spend(now time.Duration) (left bool) {
	if p.paid-now > (causedBurst-1)*causedPause {
		return false
	}
	p.paid = max(p.paid, now) + causedPause
	return true
}
