// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

// waits decides for each waiting shim whether its wait ends. A wait ends if the pod skips, if
// [Config.WaitAtMost] has passed, or if the work is done.
type waits struct {
	config Config
	shims  *gate.Proof
	orders *orders
	events *status.Events
	// course is the pod's decision; empty until a pod that may skip has decided. The field
	// "because" describes the holder that made this agent process skip. That field is empty if
	// an earlier process decided.
	course  Course
	because string
	// done reports that the agent has seen the pod's key among the done keys of every Lease of
	// the pod.
	done bool
	// failures is the number of the key's failures in the Lease. Until retryAt the pod does not
	// take a free slot.
	failures int
	retryAt  time.Duration
}

// skips reports whether the application never starts in this pod.
func (w *waits) skips() bool { return w.course == CourseSkip }

// learn remembers whether the pod's key is done, and whether the key's work has failed.
func (w *waits) learn(now time.Duration, views []elector.View) {
	w.done = w.done || w.config.work() != "" && !slices.ContainsFunc(views, func(v elector.View) bool {
		return !v.Known || !v.Record.Done.Has(w.config.work())
	})
	for _, v := range views {
		if v.Known {
			w.delay(now, v.Record.Failures)
		}
	}
}

// skipIfBusy makes a pod that may skip decide to skip, if a shim waits and living holders keep the pod
// from running. If the decision cannot be stored on disk, the pod does not skip.
func (w *waits) skipIfBusy(now time.Duration, views []elector.View) {
	if w.config.OnBusy != api.OnBusySkip || w.course != "" || len(w.shims.Waiting()) == 0 {
		return
	}
	holder := w.livingHolder(now, views)
	if holder == "" {
		return
	}
	if err := w.note(CourseSkip); err != nil {
		w.config.Log.Debug("the pod does not skip: the decision could not be noted", "err", err)
		return
	}
	w.because = holder
	w.config.Log.Info("skips", "because", holder)
	w.events.Skipped(holder)
}

// delay stores how often the pod's work has failed, and the instant of the next attempt. The delay
// counts from the instant at which this agent process saw the failures.
func (w *waits) delay(now time.Duration, f api.Failures) {
	key := w.config.OnceKey
	n := f.Count(key)
	if n == w.failures {
		return
	}
	delay := f.Delay(key)
	w.failures, w.retryAt = n, now+delay
	if delay > 0 {
		w.config.Log.Info("waits after a failure", "key", key, "failures", n, "for", delay)
	}
}

// failed describes, for people, the failures that make the pod wait.
func (w *waits) failed() string {
	return fmt.Sprintf("the work of %s has failed %s for the key %s", w.config.Slots[0], api.TimesInARow(w.failures), w.config.OnceKey)
}

// run stores on disk that the pod starts its application. In a pod that never skips, run does
// nothing.
func (w *waits) run() error {
	if w.config.OnBusy != api.OnBusySkip {
		return nil
	}
	return w.note(CourseRun)
}

var errDecided = errors.New("agent: the pod has decided already")

// note stores the pod's course on disk, before the agent acts on the course. If the pod has decided
// on another course before, note returns an error.
func (w *waits) note(c Course) error {
	switch w.course {
	case c:
		return nil
	case "":
	default:
		return errDecided
	}
	if err := w.config.NoteCourse(c); err != nil {
		return err
	}
	w.course = c
	return nil
}

// livingHolder describes, for people, the living holder that keeps the pod from running; empty
// without such a holder. A vanished holder does not count: its Lease expires, and this pod
// takes over.
func (w *waits) livingHolder(now time.Duration, views []elector.View) string {
	left := len(views)
	for _, v := range views {
		if !w.living(now, v) {
			continue
		}
		if left--; !w.config.Enough(left) {
			return fmt.Sprintf("%s is held by %s", v.Slot, api.PodOf(v.Record.Holder))
		}
	}
	return ""
}

// living reports whether another pod's application runs under the slot. A pod of the same Job
// does not count, because a Job's next pod must not skip because of the pod that it replaces. A
// holder whose application does not run, or fails its probes, does not count, either. If a
// leader election outside of Metaparticle holds the slot, renewals of the Lease are enough.
func (w *waits) living(now time.Duration, v elector.View) bool {
	r := v.Record
	if !v.Known || r.Holder == "" || v.Mine || now >= v.AliveUntil {
		return false
	}
	works := r.Hold == "" || !r.Profile.Serving.IsZero()
	return works && (w.config.Job == "" || r.Profile.Job != w.config.Job)
}

// work names the work that is done, for [gate.Dismiss.Reason].
func (w *waits) work() string {
	if run := w.config.Run; run != "" {
		group, _, _ := api.ReadShard(w.config.Slots[0])
		return fmt.Sprintf("each shard of %s that this pod can take is done in the run %s", group, run)
	}
	return fmt.Sprintf("the work of %s is done for the key %s", w.config.Slots[0], w.config.OnceKey)
}

// dismiss sends a dismissal to each shim whose wait is over. The result is the instant of the
// next decision.
func (w *waits) dismiss(now time.Duration) time.Duration {
	wake := pace.Never
	for _, r := range w.shims.Waiting() {
		order, at := w.dismissal(now, r)
		if order == nil {
			wake = min(wake, at)
			continue
		}
		first, again := w.orders.dismiss(now, r, *order)
		wake = min(wake, again)
		switch {
		case !first:
		case order.Code == api.ExitWaited:
			w.config.Log.Info("waited too long", "container", r.Container, "because", order.Reason)
			w.events.WaitedTooLong(now, r.Container, order.Reason)
		case w.done:
			w.config.Log.Info("already done", "container", r.Container, "because", order.Reason)
			w.events.AlreadyDone(now, r.Container, order.Reason)
		}
	}
	return wake
}

// dismissal returns the order that ends the shim's wait now; nil if the wait goes on. The
// second result is the instant at which the wait ends.
func (w *waits) dismissal(now time.Duration, r gate.Report) (*gate.Dismiss, time.Duration) {
	most := w.config.WaitAtMost
	switch at := max(r.Since, w.retryAt) + most; {
	case w.done:
		return &gate.Dismiss{Reason: w.work()}, pace.Never
	case w.skips():
		because := cmp.Or(w.because, "another pod held the slot")
		return &gate.Dismiss{Reason: fmt.Sprintf("%s (%s)", because, api.OnBusyAnnotation)}, pace.Never
	case most == 0:
		return nil, pace.Never
	case now < at:
		return nil, at
	}
	reason := fmt.Sprintf("the slot was not free within %v (%s)", most, api.WaitAtMostAnnotation)
	return &gate.Dismiss{Code: api.ExitWaited, Reason: reason}, pace.Never
}
