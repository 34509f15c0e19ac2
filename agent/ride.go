// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// ride decides, for a holder that is to survive an outage of the API server, whether a planned end of the
// hold waits. In an outage the slot could go to no other pod, and this pod could not take it back. So the
// hold goes on until a renewal is stored that was sent after the end was due. If the application has
// exited, the kubelet meanwhile starts its container again, and the application runs under the same hold.
type ride struct {
	// since is the instant since which the hold would end; zero while it would not.
	since time.Duration
}

// learn stores whether the hold would end now and may wait, and reports whether it goes on. The argument "renewed" is
// the instant at which the last stored renewal was sent.
func (r *ride) learn(now, renewed time.Duration, ends bool) bool {
	switch {
	case !ends:
		r.since = 0
	case r.since == 0:
		r.since = now
	}
	return r.since != 0 && renewed < r.since
}
