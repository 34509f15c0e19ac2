// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/kube"
)

const (
	// shortLinger bounds a linger while the agent does not know what is left of the pod's
	// grace. The kubelet leaves each container two seconds or more, whatever the other
	// containers of the pod took. The remaining half second is for the end of the agent's
	// process.
	shortLinger = 1500 * time.Millisecond
	// lingerMargin is the time between the end of a linger and the end of the pod's
	// grace. The API server's times are whole seconds, so the agent may be wrong about
	// that end by a second.
	lingerMargin = 2 * time.Second
	// emptied is the longest time for which connections wait in a linger while nobody holds
	// the slot. The pod that a release names has a head start of a second, and a newer
	// revision waits one second more. If the slot is still free after this time, no pod is
	// left that could take it. A controller that deleted all pods makes no others before
	// the deleted ones have ended.
	emptied = 3 * time.Second
)

// linger lets a stopping standby whose ports are open go on forwarding. A lingering
// standby competes for no slot, because its claim is stopped before the linger begins.
// The result is the instant at which the linger ends.
func (l *loop) linger(ctx context.Context) time.Duration {
	u, now := l.unit, l.now
	if u.stopping && !u.linger.begun {
		u.linger.begun = true
		if left := u.readiness.Linger(u.config.EndpointDelay); left != nil {
			u.linger.on, u.linger.until, u.linger.accepts = true, now+shortLinger, now+u.config.EndpointDelay
			l.follow(ctx, left)
		}
	}
	until := min(u.linger.until, max(u.linger.accepts, emptiedAt(u.claim.Views())))
	switch {
	case !u.linger.on:
		return instant.Never
	case now < until:
		return until
	}
	u.readiness.Close()
	u.linger.on = false
	return instant.Never
}

// emptiedAt returns the instant from which no pod is expected to take the slots. The
// result is [instant.Never] while a pod may hold one of them.
func emptiedAt(views []claim.View) time.Duration {
	at := time.Duration(0)
	for _, v := range views {
		if !v.Known || v.Record.Holder != "" || v.FreeAt == instant.Never {
			return instant.Never
		}
		at = max(at, v.FreeAt+emptied)
	}
	return at
}

// follow finds out for how long the linger may last, and when no connection is left.
func (l *loop) follow(ctx context.Context, left <-chan struct{}) {
	asking, cancel := context.WithCancel(ctx)
	l.group.Go(func() { l.askGrace(asking, l.learn) })
	l.group.Go(func() {
		defer cancel()
		select {
		case <-left:
			l.posts.post(ctx, func(time.Duration) { l.unit.linger.on = false })
		case <-ctx.Done():
		}
	})
}

// askGrace asks the API server what is left of the pod's grace, until an answer comes. The
// loop then calls the argument learn with the answer. The agent itself knows only the
// grace of the pod's spec. A deletion may shorten that grace, and the other containers of
// the pod use a part of it before the kubelet signals the agent.
func (l *loop) askGrace(ctx context.Context, learn func(sent time.Duration, pod kube.Pod)) {
	c, budget := l.unit.config, l.unit.self.Budget
	for misses := 0; ctx.Err() == nil; misses++ {
		sent := c.Clock()
		bounded, cancel := context.WithTimeout(ctx, budget.RequestTimeout)
		pod, err := c.API.ReadPod(bounded, c.PodName)
		cancel()
		if err == nil {
			l.posts.post(ctx, func(time.Duration) { learn(sent, pod) })
			return
		}
		sleep(ctx, max(budget.Retry, claim.Backoff(misses)))
	}
}

// learn notes the end of the linger, from the API server's answer to a request that was
// sent at the instant sent. The kubelet also stops pods that nobody has deleted, for
// example in an eviction. In that case only the kubelet knows the grace, so the answer
// changes nothing.
func (l *loop) learn(sent time.Duration, pod kube.Pod) {
	if pod.Deleted {
		l.unit.linger.until = sent + pod.GraceLeft - lingerMargin
	}
}
