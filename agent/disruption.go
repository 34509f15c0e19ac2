// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
)

// disruptionPatience bounds how long a stopping agent tries to store the condition. The kubelet reports
// the pod as failed only after the end of the agent, and then the Job's controller reads the condition.
// While the API server is away, the pod would only end later.
const disruptionPatience = 10 * time.Second

// disrupt begins to store the pod's condition DisruptionTarget. The end of the hold ends the pod with
// an exit code that is none of the application's. By the condition a podFailurePolicy tells such an end
// from a failure. The drain does not wait for the condition.
func (s *state) disrupt(ctx context.Context, reason string, slots []string) {
	if s.disrupted != nil {
		return
	}
	done, message := make(chan struct{}), "the pod's hold of "+strings.Join(slots, ", ")+" has ended"
	s.disrupted = done
	s.group.Go(func() {
		defer close(done)
		for misses := 0; ; misses++ {
			err := s.status.Disrupt(ctx, reason, message)
			if err == nil || errors.Is(err, kube.ErrForbidden) || gone(err) {
				return
			}
			s.config.Log.Debug("condition is not written", "err", err)
			select {
			case <-time.After(pace.Backoff(misses)):
			case <-ctx.Done():
				return
			}
		}
	})
}

// awaitDisruption waits until the condition is stored, or the patience is over.
func (s *state) awaitDisruption(ctx context.Context) {
	if s.disrupted == nil {
		return
	}
	timer := time.NewTimer(min(disruptionPatience, s.config.Grace/2))
	defer timer.Stop()
	select {
	case <-s.disrupted:
	case <-timer.C:
		s.config.Log.Warn("the pod ends without its condition DisruptionTarget: the API server did not store it in time")
	case <-ctx.Done():
	}
}
