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
	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving is a hold's way out of the pod's Services. Package leave decides, and this struct
// remembers what the decisions depend on.
type leaving struct {
	unit    *unit
	loop    *loop
	hold    string
	rollout *holdRollout
	// id identifies the leave. A pod that offered to the leave of an earlier agent
	// process may be gone. So each agent process of a hold has a leave with an id of its
	// own.
	id string

	leave leave.Leave
	leave.Decision
	// turn is the revision of the pod that follows the holder; zero if that pod begins no
	// turn.
	turn api.Revision
	// signalled is the instant at which the agent began to ask about the pod's deletion;
	// zero without a stop signal of the kubelet. The fields ends, known and deleted have
	// the answer, as in [leave.Facts].
	signalled, ends time.Duration
	known, deleted  bool
	// asked is the instant at which the agent last began to ask. Even if a shim reports a
	// stop signal again and again, the agent waits for Budget.Retry before it asks again.
	asked time.Duration
}

// endpointDelay returns the time that a holder takes to leave its Services. The time is zero
// for a pod without ports, or without turns.
func (u *unit) endpointDelay() time.Duration {
	if !u.rollout.takesTurns() || len(u.config.Ports) == 0 {
		return 0
	}
	return u.config.EndpointDelay
}

// replaced reports whether the pod is of a StatefulSet or DaemonSet. Some of their
// controllers delete each old pod that is not Ready ([Config.ReplacesUnready]). A leave
// treats all of them alike.
func (u *unit) replaced() bool {
	kind, _, _ := strings.Cut(u.config.Workload, "/")
	return kind == "StatefulSet" || kind == "DaemonSet"
}

// delay returns the longest time for which a shim may hold a kubelet's stop signal back.
// A living agent ends that wait earlier, so only a shim whose agent has died waits for
// the whole time. The time is short until the agent knows what is left of the pod's
// grace.
func (l *leaving) delay() time.Duration {
	delay := l.unit.endpointDelay()
	if delay == 0 || l.Over || l.restarts() {
		return 0
	}
	if !l.known {
		return min(gate.Heard, l.unit.config.Grace/2)
	}
	return min(delay+2*leave.Stored, max(0, l.ends-l.signalled)/2)
}

// restarts reports whether the kubelet's stop signal belongs to the restart of one
// container: by the API server's answer, the pod is not being deleted.
func (l *leaving) restarts() bool { return l.known && !l.deleted }

// due returns the wished end, or no end while the wished one is not due. A yield is due
// once the pod has left its Services.
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
	signalled, preStop := l.reported()
	askAt := instant.Never
	if signalled && l.signalled == 0 {
		askAt = l.asked + u.self.Budget.Retry
	}
	if now >= askAt {
		l.signalled, l.asked, askAt = now, now, instant.Never
		l.askDeletion(ctx)
	}
	if signalled && !l.restarts() {
		cause = leave.Deletion
		successor, turn = u.rollout.pod.Deleted(now, l.rollout.facts)
	}
	f := leave.Facts{
		Cause: cause, Successor: successor, Delay: u.endpointDelay(),
		Ready: serves && u.stored.ready && u.rollout.asks.version != "", Unready: u.stored.known && !u.stored.ready,
		Replaced: u.replaced(), Offers: l.offers(),
		PreStop: preStop, Says: s.Leaving, Serving: !s.Serving.IsZero(),
		Known: l.known, Deleted: l.deleted, Ends: l.ends,
	}
	out := l.Out
	l.Decision = l.leave.Next(now, f)
	if l.restarts() && !signalled {
		l.signalled, l.known = 0, false // the next signal may be that of a deletion
	}
	if l.Out && !out {
		l.turn = turn
		u.config.Log.Info("leaving the Services", "hold", l.hold, "successor", l.Successor)
	}
	return min(l.Wake, askAt)
}

// reported returns whether the kubelet has signalled a shim of the hold, and whether a
// shim still runs the preStop hook.
func (l *leaving) reported() (signalled, preStop bool) {
	for _, r := range l.unit.shims.Reports() {
		if r.Stopping && r.Phase == gate.Running && r.Hold == l.hold && !r.Dead {
			signalled, preStop = true, preStop || r.PreStop
		}
	}
	return signalled, preStop
}

// offers returns the offers of other pods. The holder ignores an offer in its own name,
// because otherwise the holder could yield to itself.
func (l *leaving) offers() []api.Offer {
	own := func(o api.Offer) bool { return o.Identity == l.unit.self.Identity }
	return slices.DeleteFunc(slices.Clone(l.unit.rollout.asks.offersTo(l.id)), own)
}

// askDeletion asks the API server whether the pod is being deleted, and what is left of
// its grace, until an answer comes. The stop signal alone does not tell, because the
// kubelet also stops a container that fails its liveness probe.
func (l *leaving) askDeletion(ctx context.Context) {
	l.loop.group.Go(func() {
		l.loop.askGrace(ctx, func(sent time.Duration, pod kube.Pod) {
			l.known, l.deleted, l.ends = true, pod.Deleted, sent+pod.GraceLeft
			l.unit.deletion.note("", pod.Deleted)
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

// cause returns the cause of a yield, as package leave names it; [leave.None] for every
// other end.
func (e ending) cause() leave.Cause {
	switch {
	case e.reason != show.ReasonYield:
		return leave.None
	case e.turn.Valid():
		return leave.Turn
	}
	return leave.Yield
}
