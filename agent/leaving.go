// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving has what package leave needs to decide how a holder leaves the pod's Services.
type leaving struct {
	unit    *unit
	loop    *loop
	hold    string
	rollout *holdRollout
	// id identifies the leave. Each agent process of a hold uses another id, because the pods
	// that offered to an earlier process may be gone.
	id string

	leave leave.Leave
	leave.Decision
	// turn is the revision of the successor; zero if no turn begins with the successor.
	turn api.Revision
	// signalled is the instant of the agent's first read of the pod after a stop signal of the
	// kubelet; zero without such a signal. The answer to that read is in the fields "ends",
	// "known" and "deleted", as in [leave.Facts].
	signalled, ends time.Duration
	known, deleted  bool
	// lastRead is the instant of the last read of the pod. A shim may report stop signals again
	// and again, so the agent reads again only after Budget.Retry.
	lastRead time.Duration
}

// endpointDelay returns the time that a holder takes to leave its Services; zero for a pod
// without ports, or without turns.
func (u *unit) endpointDelay() time.Duration {
	if !u.rollout.takesTurns() || len(u.config.Ports) == 0 {
		return 0
	}
	return u.config.EndpointDelay
}

// replaced reports whether the pod belongs to a StatefulSet or a DaemonSet. The controller of such
// a pod may be strict ([Config.ReplacesUnready]), but a leave treats all such pods alike.
func (u *unit) replaced() bool {
	kind, _, _ := strings.Cut(u.config.Workload, "/")
	return kind == "StatefulSet" || kind == "DaemonSet"
}

// stopDelay returns the longest time for which a shim may hold back a stop signal of the kubelet; zero
// for no delay. A living agent ends the delay earlier, unless the API server stores none of its
// writes. Then the shim stops the application a few seconds before the end of the leave. Until the
// agent knows how much of the pod's grace is left, the delay is short.
func (l *leaving) stopDelay() time.Duration {
	delay := l.unit.endpointDelay()
	if delay == 0 || l.Over || l.restarts() {
		return 0
	}
	if !l.known {
		return min(gate.Heard, l.unit.config.Grace/2)
	}
	return min(delay+leave.Patience+2*leave.Stored, max(0, l.ends-l.signalled)/2)
}

// restarts reports whether the kubelet's stop signal belongs to the restart of one container:
// the API server has answered that nobody has deleted the pod.
func (l *leaving) restarts() bool { return l.known && !l.deleted }

// due returns the argument "wish" if the wished end is due now; otherwise the zero value. A yield
// is due once the pod has left its Services. Every other end is due immediately.
func (l *leaving) due(wish ending) ending {
	if wish.reason == status.ReasonYield && !l.Over {
		return ending{}
	}
	return wish
}

// next decides how the pod leaves its Services before the wished end. The result is the
// instant of the next decision.
func (l *leaving) next(ctx context.Context, s elector.State, wish ending, serves bool) time.Duration {
	u, now := l.unit, l.loop.now
	cause, successor, turn := wish.cause(), wish.successor, wish.turn
	signalled, preStop := l.reported()
	readAt := instant.Never
	if signalled && l.signalled == 0 {
		readAt = l.lastRead + u.self.Budget.Retry
	}
	if now >= readAt {
		l.signalled, l.lastRead, readAt = now, now, instant.Never
		l.readDeletion(ctx)
	}
	if signalled && !l.restarts() {
		cause = leave.Deletion
		successor, turn = u.rollout.pod.Deleted(now, l.rollout.facts)
	}
	f := leave.Facts{
		Cause: cause, Successor: successor, EndpointDelay: u.endpointDelay(),
		Ready: serves && (u.stored.ready || u.readiness.Postponed(now)) && u.rollout.asks.version != "", Unready: u.stored.known && !u.stored.ready,
		Replaced: u.replaced(), Offers: l.offers(),
		PreStop: preStop, Says: s.Leaving, Serving: !s.Serving.IsZero(),
		Known: l.known, Deleted: l.deleted, Ends: l.ends,
	}
	out := l.Out
	l.Decision = l.leave.Next(now, f)
	if l.restarts() && !signalled {
		l.signalled, l.known = 0, false // the next stop signal may belong to a deletion
	}
	if l.Out && !out {
		l.turn = turn
		u.config.Log.Info("leaving the Services", "hold", l.hold, "successor", l.Successor)
	}
	return min(l.Wake, readAt)
}

// reported reports whether the kubelet has signalled a shim of the hold, and whether a shim
// still runs the preStop hook.
func (l *leaving) reported() (signalled, preStop bool) {
	for _, r := range l.unit.shims.Reports() {
		if r.Stopping && r.Phase == gate.Running && r.Hold == l.hold {
			signalled, preStop = true, preStop || r.PreStop
		}
	}
	return signalled, preStop
}

// offers returns the offers of other pods. An offer in the holder's own name does not count,
// because the holder could otherwise yield to itself.
func (l *leaving) offers() []api.Offer {
	own := func(o api.Offer) bool { return o.Identity == l.unit.self.Identity }
	return slices.DeleteFunc(slices.Clone(l.unit.rollout.asks.offersTo(l.id)), own)
}

// readDeletion reads the pod until the API server answers. The answer states whether the pod is
// being deleted, and how much of its grace is left. The stop signal alone does not prove a
// deletion, because the kubelet also stops a container that fails its liveness probe.
func (l *leaving) readDeletion(ctx context.Context) {
	l.loop.group.Go(func() {
		l.loop.readGrace(ctx, func(sent time.Duration, pod kube.Pod) {
			l.known, l.deleted, l.ends = true, pod.Deleted, sent+pod.GraceLeft
			l.unit.deletion.learn("", pod.Deleted)
		})
	})
}

// ending has the reason for the end of a hold, the grace of the hold's children, and the
// successor that the releases name.
type ending struct {
	reason    string
	grace     time.Duration
	successor string
	// turn is the revision that has its turn next; zero for none.
	turn api.Revision
}

// cause returns the [leave.Cause] of an end by a yield, and [leave.None] for every other end.
func (e ending) cause() leave.Cause {
	switch {
	case e.reason != status.ReasonYield:
		return leave.None
	case e.turn.Valid():
		return leave.Turn
	}
	return leave.Yield
}
