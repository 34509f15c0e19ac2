// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

const (
	// The pause doubles after each failure. Most failures end within a second: enroll has not
	// granted the right yet.
	shortestPause = 250 * time.Millisecond
	// longestPause bounds the load: a pod that is refused sends a read and a watch at most
	// every 10 s. A watch that lasts longer is a success. So watches that end early again and
	// again cause no more load than refused watches.
	longestPause = 10 * time.Second
	// longestRetryAfter bounds the pause that a server can request.
	longestRetryAfter = time.Minute
)

// pace spreads the looks of one wait.
type pace struct {
	random   *rand.Rand
	failures int
}

// pause returns the time until the next look, and counts the last look. The argument lasted
// is the duration of its watch, and err is the error of its read or watch.
func (p *pace) pause(lasted time.Duration, err error) time.Duration {
	if lasted >= longestPause {
		p.failures = 0
	}
	pause := shortestPause
	for range p.failures {
		pause = min(2*pause, longestPause)
	}
	if pause < longestPause {
		p.failures++
	}
	if refusal, ok := errors.AsType[*kube.StatusError](err); ok {
		pause = max(pause, min(refusal.RetryAfter, longestRetryAfter))
	}
	return pause + upTo(p.random, pause/2)
}

// upTo returns a random duration below the bound.
func upTo(random *rand.Rand, bound time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(bound)))
}
