// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// readTimeout bounds a read: 5 s to connect, and 15 s in a queue of the API server.
	readTimeout = 20 * time.Second

	// A watch lasts between watchMin and watchMin+watchSpread. The time is bounded because a
	// watch may fall silent: the pod then waits at most 24 minutes too long. Besides, the API
	// server checks the right to watch only at the start of a watch. The spread keeps watches
	// that began together from ending together.
	watchMin    = 12 * time.Minute
	watchSpread = 12 * time.Minute
)

// wait is the wait for one condition.
type wait struct {
	api       API
	condition api.Condition
	random    *rand.Rand
	judge     judge
	pace      pace
	notices   *notices
	met       bool
	// uid is the UID of the Lease in the last state; empty if the Lease did not exist.
	uid string
	// moved reports that the last state showed a done shard. So the next look, at the Lease of the
	// following shard, comes at once.
	moved bool
}

func newWait(c Config, condition api.Condition, random *rand.Rand) *wait {
	return &wait{
		api: c.API, condition: condition, random: random, judge: judge{condition: condition},
		pace: pace{random: random}, notices: newNotices(c, condition),
	}
}

// run looks at the Lease until the condition is met, or until ctx ends.
func (w *wait) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var notices sync.WaitGroup
	notices.Go(func() { w.notices.run(ctx) })
	defer notices.Wait()
	defer stop() // stop ends the notices
	for {
		lasted, err := w.look(ctx)
		switch {
		case w.met:
			w.notices.met()
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			w.notices.because(failure(err))
		case w.moved:
			w.moved = false
			continue
		}
		select {
		case <-time.After(w.pace.pause(lasted, err)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look reads the Lease, and watches the Lease from the version of that read. The result is
// the duration of the watch.
func (w *wait) look(ctx context.Context) (time.Duration, error) {
	lease := w.judge.lease()
	version, err := w.read(ctx, lease)
	if err != nil || w.met || lease != w.judge.lease() {
		return 0, err
	}
	began := time.Now()
	err = w.watch(ctx, lease, version)
	if w.met && version == "" && w.judge.needsHolder() {
		err = w.confirm(ctx, lease)
	}
	return time.Since(began), err
}

// confirm reads the Lease again, because a watch without a version may begin with old states. Those
// states may be of a Lease that somebody had deleted before the pod began to wait. If the read shows
// no such Lease, the wait goes on.
func (w *wait) confirm(ctx context.Context, lease string) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	l, err := w.api.GetLease(ctx, lease)
	if w.met = err == nil && l.UID == w.uid; !w.met {
		w.see(nil)
	}
	if errors.Is(err, kube.ErrNotFound) {
		return nil
	}
	return err
}

// read judges the present state of the Lease, and returns its version. If the Lease does not
// exist, the version is empty. A watch from the empty version first reports the state at
// the start of the watch. So the wait does not miss a Lease that appears after the read.
func (w *wait) read(ctx context.Context, lease string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	l, err := w.api.GetLease(ctx, lease)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		w.see(nil)
		return "", nil
	case err != nil:
		return "", err
	}
	w.see(l)
	return l.ResourceVersion, nil
}

// watch judges each state after the version. The watch ends once the condition is met, or once
// another Lease is to be read. If the watch ends because its version is too old, or its time is
// over, watch returns no error. A new read is enough then.
func (w *wait) watch(ctx context.Context, lease, version string) error {
	ctx, cancel := context.WithTimeout(ctx, watchMin+upTo(w.random, watchSpread))
	defer cancel()
	err := w.api.WatchLease(ctx, lease, version, func(e kube.WatchEvent) {
		switch {
		case w.met || lease != w.judge.lease() || e.Type == kube.Bookmark:
		case e.Type == kube.Deleted:
			w.see(nil)
		default:
			w.see(e.Lease)
		}
		if w.met || lease != w.judge.lease() {
			cancel()
		}
	})
	if errors.Is(err, kube.ErrGone) || ctx.Err() != nil {
		return nil
	}
	return err
}

// see judges one state of the Lease; l is nil if the Lease does not exist.
func (w *wait) see(l *kube.Lease) {
	w.uid = ""
	if l != nil {
		w.uid = l.UID
	}
	before := w.judge.shards.next
	missing := w.judge.see(l)
	w.met = missing == ""
	w.moved = w.judge.shards.next > before
	w.notices.because(missing)
}
