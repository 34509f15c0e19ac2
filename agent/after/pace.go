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
	// shortestPause is the pause after the first failure; each further failure doubles the
	// pause. Most failures end within a second, as soon as enroll has granted the missing right.
	shortestPause = 250 * time.Millisecond
	// longestPause bounds the load: a pod whose requests are refused sends a read and a watch at
	// most every 10 s. A watch counts as a success only if it lasts at least longestPause. So
	// watches that end early cause no more load than refused watches.
	longestPause = 10 * time.Second
	// longestRetryAfter bounds the pause that a server can request.
	longestRetryAfter = time.Minute
)

// pace sets the pauses between the looks of one wait.
type pace struct {
	random   *rand.Rand
	failures int
}

// pause returns the time until the next look. The pauses grow from call to call. After a watch of
// at least [longestPause], the pauses are short again. No pause is shorter than the Retry-After of
// the server's answer, up to [longestRetryAfter]. The argument "lasted" is the duration of the
// watch in the last look, and err is the error of that look.
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
