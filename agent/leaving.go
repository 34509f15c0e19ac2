// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving is a hold's way out of the pod's Services. Package leave decides, and leaving
// remembers what the decisions depend on.
type leaving struct {
	unit  *unit
	loop  *loop
	hold  string
	share *share
	// id identifies the leave. A pod may have offered to the leave of an earlier agent
	// process, and be gone. So each process of a hold has a leave of its own.
	id string

	leave leave.Leave
	leave.Decision
	// turn is the revision of the pod that follows; zero if that pod begins no turn.
	turn api.Revision
	// asked: the API server was asked about the pod's deletion. The other fields have its
	// answer, as in [leave.Facts].
	asked, known, deleted bool
	ends                  time.Duration
}

// endpointDelay returns the time that a holder takes to leave its Services. The time is zero
// for a pod whose ports never change hands, or whose slot has no next Lease.
func (u *unit) endpointDelay() time.Duration {
	if !u.rollout.ordered() || len(u.config.Ports) == 0 {
		return 0
	}
	return u.config.EndpointDelay
}

// replaced reports whether the pod's controller deletes an old pod that is not Ready,
// however few are Ready.
func (u *unit) replaced() bool {
	kind, _, _ := strings.Cut(u.config.Workload, "/")
	return kind == "StatefulSet" || kind == "DaemonSet"
}

// delay returns the longest time for which a shim may hold a kubelet's stop signal back. The
// agent ends the wait; the rest is for an agent that has died.
func (l *leaving) delay() time.Duration {
	delay := l.unit.endpointDelay()
	if delay == 0 || l.Over {
		return 0
	}
	return min(delay+leave.Answers+leave.Passing, l.unit.config.Grace/2)
}

// due returns the wished end. A yield waits until the pod has left its Services.
func (l *leaving) due(wish ending) ending {
	if wish.reason == show.ReasonYield && !l.Over {
		return ending{}
	}
	return wish
}

// next decides how the pod leaves its Services before the wished end. The result is the
// instant of the next decision.
func (l *leaving) next(ctx context.Context, s claim.State, wish ending, serves bool) time.Duration {
	u, now := l.unit, l.loop.now
	cause, successor, turn := wish.cause(), wish.successor, wish.turn
	signalled := func(r gate.Report) bool { return r.Stopping && r.Phase == gate.Running && r.Hold == l.hold }
	if slices.ContainsFunc(u.shims.Reports(), signalled) {
		cause = leave.Deletion
		successor, turn = u.rollout.pod.Deleted(now, l.share.facts)
	}
	if cause == leave.Deletion && !l.asked {
		l.asked = true
		l.askDeletion(ctx)
	}
	f := leave.Facts{
		Cause: cause, Successor: successor, Delay: u.endpointDelay(),
		Ready: serves && u.stored.ready && u.rollout.asks.version != "", Unready: u.stored.known && !u.stored.ready,
		Replaced: u.replaced(), Offers: u.rollout.asks.offersTo(l.id),
		Says: s.Leaving, Serving: !s.Serving.IsZero(),
		Known: l.known, Deleted: l.deleted, Ends: l.ends,
	}
	out := l.Out
	l.Decision = l.leave.Next(now, f)
	if l.Out && !out {
		l.turn = turn
		u.config.Log.Info("leaving the Services", "hold", l.hold, "successor", l.Successor)
	}
	return l.Wake
}

// askDeletion asks the API server whether the pod is being deleted, and what is left of its
// grace. A kubelet also stops a container that fails its liveness probe.
func (l *leaving) askDeletion(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, leave.Stored)
	l.loop.group.Go(func() {
		defer cancel()
		l.loop.askGrace(bounded, func(sent time.Duration, pod kube.Pod) {
			l.known, l.deleted, l.ends = true, pod.Deleted, sent+pod.GraceLeft
			l.unit.deletion.known = l.unit.deletion.known || pod.Deleted
		})
	})
}

// ending has the reason why a hold ends, the grace that its children get, and the pod
// that its releases name.
type ending struct {
	reason    string
	grace     time.Duration
	successor string
	// turn is the revision that has its turn next; zero for none.
	turn api.Revision
}

// cause returns why the application is to stop by a yield.
func (e ending) cause() leave.Cause {
	switch {
	case e.reason != show.ReasonYield:
		return leave.None
	case e.turn.Valid():
		return leave.Turn
	}
	return leave.Yield
}
