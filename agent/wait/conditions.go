// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// API has the requests that a wait sends. [kube.Client] documents them.
type API interface {
	GetLease(ctx context.Context, name string) (*kube.Lease, error)
	// WatchLease calls fn for each event, one call at a time, and makes no call after WatchLease
	// has returned.
	WatchLease(ctx context.Context, name, resourceVersion string, fn func(kube.WatchEvent)) error
	// CreateEvent may be called concurrently with the other requests.
	CreateEvent(ctx context.Context, event kube.Event) error
}

// Config has the conditions for which the pod waits, and what the wait needs.
type Config struct {
	API        API
	Conditions []api.Condition
	// PodName and PodUID identify the pod, for its Events.
	PodName, PodUID string
	// Log receives a line for each notice. Its Write may be called concurrently, and must not
	// block.
	Log io.Writer
	// Random is the only source of randomness.
	Random rand.Source
}

// Conditions waits until each condition has been met once. If ctx ends first, it returns the cause of
// that end.
func Conditions(ctx context.Context, c Config) error {
	if c.API == nil || c.Log == nil || c.Random == nil {
		return errors.New("after: no API, no log or no randomness")
	}
	random := rand.New(c.Random)
	for _, condition := range c.Conditions {
		if err := newWait(c, condition, random).run(ctx); err != nil {
			return fmt.Errorf("wait until %s: %w", goal(condition), err)
		}
	}
	return nil
}

const (
	// readTimeout bounds a read: 5 s to connect, and 15 s in a queue of the API server.
	readTimeout = 20 * time.Second
	// longestWatch bounds a watch: a pod whose watch is silent waits at most 24 minutes too long.
	longestWatch = 24 * time.Minute
)

// wait is the wait for one condition.
type wait struct {
	api       API
	condition api.Condition
	random    *rand.Rand
	judge     judge
	notices   *notices
	met       bool
	// uid is the UID of the Lease in the last state; empty if the Lease did not exist. seen is the version
	// of the last state that is not older than the last read.
	uid, seen string
	// moved reports that the last state showed a done shard. So the next look, at the Lease of the
	// following shard, comes at once.
	moved bool
}

func newWait(c Config, condition api.Condition, random *rand.Rand) *wait {
	return &wait{
		api: c.API, condition: condition, random: random, judge: judge{condition: condition},
		notices: newNotices(c, condition),
	}
}

// run looks at the Lease until the condition is met, or until ctx ends.
func (w *wait) run(ctx context.Context) error {
	telling, stop := context.WithCancel(ctx)
	var notices sync.WaitGroup
	notices.Go(func() { w.notices.run(telling) })
	defer notices.Wait()
	defer stop()
	err := kube.Follow(ctx, kube.Following{
		Read: w.read, Watch: w.watch, Longest: longestWatch, Random: w.random,
		Failed: func(err error) { w.notices.because(failure(err)) },
	})
	if err == nil {
		w.notices.met()
	}
	return err
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

// read judges the present state of the Lease, and returns its version; empty if the Lease does not
// exist. From an empty version a watch first reports the state at its start, so the wait does not miss a
// Lease that appears after the read.
func (w *wait) read(ctx context.Context) (version string, err error) {
	lease := w.judge.lease()
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	l, err := w.api.GetLease(ctx, lease)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		w.seen = ""
		w.see(nil)
		return "", w.after(lease)
	case err != nil:
		return "", err
	}
	w.seen = l.ResourceVersion
	w.see(l)
	return l.ResourceVersion, w.after(lease)
}

// watch judges each state after the version. The watch ends once the condition is met, or once
// another Lease is to be read.
func (w *wait) watch(ctx context.Context, version string) error {
	lease := w.judge.lease()
	watching, end := context.WithCancel(ctx)
	defer end()
	err := w.api.WatchLease(watching, lease, version, func(e kube.WatchEvent) {
		switch {
		case w.after(lease) != nil || e.Type == kube.Bookmark || !kube.Later(e.ResourceVersion, w.seen):
			return
		case e.Type == kube.Deleted:
			w.see(nil)
		default:
			w.see(e.Lease)
		}
		w.seen = e.ResourceVersion
		if w.after(lease) != nil {
			end()
		}
	})
	if w.met && version == "" && w.judge.needsHolder() {
		err = w.confirm(ctx, lease)
	}
	return cmp.Or(w.after(lease), err)
}

// after says how [kube.Follow] goes on after a state of the Lease.
func (w *wait) after(lease string) error {
	switch {
	case w.met:
		return kube.ErrDone
	case w.judge.lease() == lease:
		return nil
	case w.moved:
		return kube.ErrAgain
	default:
		// A stamp has named another run, so the wait is back at shard 0. Two shards that disagree would send
		// it to and fro, so a pause comes first.
		return kube.ErrBack
	}
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

// holder returns the name of the holder's pod, for people. Any client may have written that name,
// so holder quotes the name and bounds its length.
func holder(l *kube.Lease) string { return fmt.Sprintf("%.253q", api.PodOf(l.Holder)) }
