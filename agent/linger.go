// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
)

const (
	// shortLinger bounds a linger while the agent does not know how much of the pod's grace is
	// left. The kubelet gives each container at least two seconds, however long the other
	// containers took. The last half second is left for the end of the agent's process.
	shortLinger = 1500 * time.Millisecond
	// lingerMargin is the time between the end of a linger and the end of the pod's
	// grace. The API server's times are whole seconds, so the agent may be wrong about
	// that end by a second.
	lingerMargin = 2 * time.Second
	// longestVacancy bounds how long a lingering standby keeps connections waiting while the slot is
	// free. In the first second only the successor, or only pods of the proven revision, may
	// take the slot. If the slot is still free after three seconds, no pod is left that could
	// take the slot soon. A controller that has deleted all pods creates no pod before the
	// deleted pods have ended.
	longestVacancy = 3 * time.Second
)

// lingerOn makes a stopping standby continue to forward, if its ports are open. A lingering standby
// competes for no slot, because its claim is stopped before the linger begins. While the standby
// lingers, the result is the instant at which the linger ends; otherwise [pace.Never].
func (s *state) lingerOn(ctx context.Context, views []elector.View) time.Duration {
	now := s.now
	if s.stopping && !s.linger.begun {
		s.linger.begun = true
		if left := s.readiness.Linger(s.config.EndpointDelay); left != nil {
			s.linger.on, s.linger.until, s.linger.least = true, now+shortLinger, now+s.config.EndpointDelay
			s.awaitLeft(ctx, left)
		}
	}
	until := min(s.linger.until, max(s.linger.least, emptiedAt(views)))
	switch {
	case !s.linger.on:
		return pace.Never
	case now < until:
		return until
	}
	s.readiness.Close()
	s.linger.on = false
	return pace.Never
}

// emptiedAt returns the instant from which this pod expects no other pod to take the free slots.
// While a pod may hold one of the slots, the result is [pace.Never].
func emptiedAt(views []elector.View) time.Duration {
	at := time.Duration(0)
	for _, v := range views {
		if !v.Known || v.Record.Holder != "" || v.FreeAt == pace.Never {
			return pace.Never
		}
		at = max(at, v.FreeAt+longestVacancy)
	}
	return at
}

// awaitLeft starts two goroutines. The first goroutine reads the pod for the end of the pod's grace.
// The second goroutine waits until the last forwarded connection has ended.
func (s *state) awaitLeft(ctx context.Context, left <-chan struct{}) {
	reading, cancel := context.WithCancel(ctx)
	s.group.Go(func() { s.readGrace(reading, s.endLinger) })
	s.group.Go(func() {
		defer cancel()
		select {
		case <-left:
			s.posts.post(ctx, func(time.Duration) { s.linger.on = false })
		case <-ctx.Done():
		}
	})
}

// readGrace reads the pod until the API server answers. The loop then calls learn with the answer,
// which states how much of a deleted pod's grace is left. Without the answer the agent knows only
// the grace of the pod's spec. A deletion may shorten that grace, and the other containers of the
// pod use a part of it before the kubelet signals the agent.
func (s *state) readGrace(ctx context.Context, learn func(sent time.Duration, pod kube.Pod)) {
	c, budget := s.config, s.self.Budget
	for misses := 0; ctx.Err() == nil; misses++ {
		sent := c.Clock()
		bounded, cancel := context.WithTimeout(ctx, budget.RequestTimeout)
		pod, err := c.API.ReadDeletion(bounded, c.PodName)
		cancel()
		if err == nil {
			s.posts.post(ctx, func(time.Duration) { learn(sent, pod) })
			return
		}
		sleep(ctx, max(budget.Retry, pace.Backoff(misses)))
	}
}

// endLinger sets the end of the linger by the API server's answer to a read of the pod. The argument
// "sent" is the instant of that read. The kubelet also stops pods that nobody has deleted, for
// example in an eviction. Then only the kubelet knows the grace, so the answer changes nothing.
func (s *state) endLinger(sent time.Duration, pod kube.Pod) {
	if pod.Deleted {
		s.linger.until = sent + pod.GraceLeft - lingerMargin
	}
}
