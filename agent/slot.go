// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// slot is one Lease, as this agent sees and holds it.
type slot struct {
	name string
	view lease.Observer
	// base is the whole Lease behind the last record of view or held: a write
	// keeps what it does not know.
	base *kube.Lease
	// held is nil while the slot is not held.
	held *lease.Hold
	// lost says that the Lease was seen not to be of the hold any more.
	lost error

	// A standby's read and watch: cancel ends it, round tells its late words
	// from those of its successor, resume is where a watch that ended in good
	// order goes on.
	cancel context.CancelFunc
	round  int
	resume string
	lookAt time.Duration
	// began is when the last look began, misses how many came one after another.
	began  time.Duration
	misses int
	pace   pace

	// Writes: how many are under way, when the next may begin, and the version
	// that was refused as old.
	flights int
	tryAt   time.Duration
	refused string
	// unread: a refused write calls for a consistent read.
	unread bool
	// assured counts the leaps of the wall clock before the last stored renewal was
	// sent. hurried is the instant at which a leap last caused an attempt.
	assured int
	hurried time.Duration
}

// recordOf is what the Lease says.
func recordOf(l *kube.Lease) lease.Record {
	serving, err := time.Parse(time.RFC3339, l.Annotations[api.ServingAnnotation])
	// An elector that knows nothing of our annotations leaves them standing:
	// who has served since before it acquired is not the one that holds.
	if err != nil || serving.Before(l.AcquireTime) {
		serving = time.Time{}
	}
	return lease.Record{
		UID:         l.UID,
		Version:     l.ResourceVersion,
		Holder:      l.Holder,
		Duration:    time.Duration(l.DurationSeconds) * time.Second,
		AcquireTime: l.AcquireTime,
		RenewTime:   l.RenewTime,
		Transitions: l.Transitions,
		Hold:        l.Annotations[api.HoldAnnotation],
		Token:       l.Annotations[api.TokenAnnotation],
		BootID:      l.Annotations[api.BootAnnotation],
		Notes: lease.Notes{
			Address:  l.Annotations[api.AddressAnnotation],
			Workload: l.Annotations[api.WorkloadAnnotation],
			Serving:  serving,
		},
	}
}

// leaseOf is base with what r says.
func leaseOf(base *kube.Lease, r lease.Record) *kube.Lease {
	l := base.Clone()
	l.UID, l.ResourceVersion = r.UID, r.Version
	l.Holder = r.Holder
	l.DurationSeconds = int(r.Duration / time.Second)
	l.AcquireTime, l.RenewTime = r.AcquireTime, r.RenewTime
	l.Transitions = r.Transitions
	annotations := maps.Clone(l.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	set := func(key, value string) {
		if value == "" {
			delete(annotations, key)
			return
		}
		annotations[key] = value
	}
	serving := ""
	if !r.Notes.Serving.IsZero() {
		serving = r.Notes.Serving.UTC().Format(time.RFC3339Nano)
	}
	set(api.HoldAnnotation, r.Hold)
	set(api.TokenAnnotation, r.Token)
	set(api.BootAnnotation, r.BootID)
	set(api.AddressAnnotation, r.Notes.Address)
	set(api.WorkloadAnnotation, r.Notes.Workload)
	set(api.ServingAnnotation, serving)
	l.Annotations = annotations
	return l
}

// look reads the Lease, unless it can resume, and watches it until something
// ends that. It tells the loop what it sees and decides nothing.
func (a *Agent) look(ctx context.Context, s *slot) {
	ctx, s.cancel = context.WithCancel(ctx)
	s.round++
	round, resume := s.round, s.resume
	s.began = a.now
	s.pace.spend(a.now)
	tell := func(f func()) {
		a.post(ctx, func() {
			if s.round == round {
				f()
			}
		})
	}
	a.group.Go(func() {
		version, err := resume, error(nil)
		if version == "" {
			version, err = a.read(ctx, s, tell)
		}
		watch := func(from string) error {
			return a.config.API.WatchLease(ctx, s.name, from, func(e kube.WatchEvent) {
				version = e.ResourceVersion
				tell(func() { a.watched(s, e) })
			})
		}
		if err == nil {
			err = watch(version)
		}
		if errors.Is(err, kube.ErrGone) && resume == "" {
			// The Lease was written so long ago that the server has forgotten its
			// version. A watch from now on begins with the Lease as it is.
			tell(func() { s.pace.spend(a.now) })
			err = watch("")
		}
		tell(func() { a.looked(s, version, err) })
	})
}

// read reads the Lease for a watch to go on from.
func (a *Agent) read(ctx context.Context, s *slot, tell func(func())) (string, error) {
	get, cancel := context.WithTimeout(ctx, a.self.Budget.RequestTimeout)
	defer cancel()
	l, err := a.config.API.GetLease(get, s.name)
	if err != nil {
		return "", err
	}
	tell(func() {
		s.pace.spend(a.now) // for the watch, which comes next
		if s.held != nil {
			a.guarded(s, l, false)
			return
		}
		s.base = l
		s.view.Read(a.now, recordOf(l))
	})
	return l.ResourceVersion, nil
}

// watched takes one event of a watch.
func (a *Agent) watched(s *slot, e kube.WatchEvent) {
	switch {
	case e.Lease == nil:
		return
	case s.held != nil:
		a.guarded(s, e.Lease, e.Type == kube.Deleted)
		return
	}
	if e.Type == kube.Deleted {
		a.config.Log.Warn("lease is gone", "lease", s.name)
		s.view.Gone()
		// No standby's own write finds out that this watch has fallen silent:
		// there is nothing to take. So the Lease is read until it is back.
		a.lookAgain(s, kube.ErrNotFound)
		return
	}
	s.base = e.Lease
	s.view.Watched(a.now, recordOf(e.Lease))
}

// looked takes the end of a look. A watch that ended in good order goes on from
// where it was; after anything else there is a time of which nothing is known.
func (a *Agent) looked(s *slot, version string, err error) {
	switch {
	case err == nil:
		s.cancel()
		s.cancel, s.resume = nil, version
		// Not faster than holders try, whatever a server does with watches.
		s.lookAt = max(a.now, s.began+a.self.Budget.Retry)
		return
	case errors.Is(err, kube.ErrNotFound):
		s.view.Gone()
	}
	a.lookAgain(s, err)
}

// lookAgain ends a look that shows nothing any more, and begins the next after a
// pause.
func (a *Agent) lookAgain(s *slot, err error) {
	s.unlook()
	s.view.Blind()
	s.lookAt = a.now + a.backoff(s, err)
	a.config.Log.Debug("lease is out of sight", "lease", s.name, "err", err)
}

// unlook ends a look; nothing of it is heard any more.
func (s *slot) unlook() {
	if s.cancel != nil {
		s.cancel()
	}
	s.round++
	s.cancel, s.resume, s.lookAt = nil, "", 0
}

// put sends a write and takes its answer. The instant of sending is the
// caller's to note, before it calls.
func (a *Agent) put(ctx context.Context, s *slot, r lease.Record, answer func(*kube.Lease, error)) {
	l := leaseOf(s.base, r)
	a.ask(ctx, s, func(ctx context.Context) (*kube.Lease, error) { return a.config.API.UpdateLease(ctx, l) }, answer)
}

// get sends a consistent read and takes its answer.
func (a *Agent) get(ctx context.Context, s *slot, answer func(*kube.Lease, error)) {
	a.ask(ctx, s, func(ctx context.Context) (*kube.Lease, error) { return a.config.API.GetLease(ctx, s.name) }, answer)
}

func (a *Agent) ask(ctx context.Context, s *slot, request func(context.Context) (*kube.Lease, error), answer func(*kube.Lease, error)) {
	s.flights++
	s.pace.spend(a.now)
	a.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, a.self.Budget.RequestTimeout)
		defer cancel()
		l, err := request(bounded)
		a.post(ctx, func() {
			s.flights--
			answer(l, err)
		})
	})
}
