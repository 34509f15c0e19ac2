// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/status"
)

// newClaim returns the driver of a claim of the pod, for a configuration that has what differs between
// the claims.
func (s *state) newClaim(c elector.Config) *elector.Elector {
	of := s.config
	c.Leases, c.Post, c.Group, c.Log = of.API, s.posts.post, &s.group, of.Log
	e := elector.New(c, of.Clock())
	s.claims = append(s.claims, e)
	return e
}

// sends prepares an acquiring or releasing write of the main claim. A new hold also needs a check whether this pod
// is being deleted. If the last release names this pod as successor, the check does not delay the
// grant: either [state.sendCheckAhead] has just found that the pod is not being deleted, or the check is
// sent with the write. If the release does not name this pod, several standbys may send the write,
// and only the pod that then holds sends the check ([hold.run]).
func (s *state) sends(ctx context.Context, now time.Duration, a *elector.Action) {
	hold, last := a.Record.Hold, s.claim.Record(a.Slot)
	if a.Resumed {
		s.checked = hold
		return
	}
	a.Record.Rollout = s.rollout.text(now, s.config.Wall(), *a, last)
	if a.Kind == elector.Release {
		return
	}
	switch named := last.Successor == s.self.Identity; {
	case named && s.deletion.clearedAhead(s.config.Clock()):
		s.checked = hold
	case named:
		s.checkDeletion(ctx, hold)
	default:
		s.checked = ""
	}
}

// answered counts a write in the metrics, and reports a release, or the failure of any request, in
// the log. A release also causes an Event. In an outage each attempt fails, so failures have the level Debug: the log of
// cmd/agent has the first of them, and says when renewals succeed again.
func (s *state) answered(a elector.Action, err, refusal error) {
	count(s.metrics, a, err)
	log := s.config.Log
	switch {
	case a.Kind == elector.Release && refusal == nil:
		log.Info("released", "lease", a.Slot, "hold", a.Hold)
		s.events.Released(a.Slot, s.causeOfEnd(a.Hold))
	case a.Kind == elector.Renew && refusal == nil:
		if lasted := s.now - s.unrenewedSince; s.unrenewedSince != 0 && lasted > 3*s.self.Budget.Renew { // a slow API server seldom takes so long
			log.Info("renewed again", "lease", a.Slot, "hold", a.Record.Hold, "after", lasted.String())
		}
		s.unrenewedSince = 0
	case refusal == nil:
	case a.Kind == elector.Renew:
		if s.unrenewedSince == 0 {
			s.unrenewedSince = s.now
		}
		log.Debug("not renewed", "lease", a.Slot, "hold", a.Record.Hold, "err", refusal)
	case a.Kind == elector.Read:
		log.Debug("not read", "lease", a.Slot, "err", refusal)
	default:
		log.Debug("write was not stored", "lease", a.Slot, "err", refusal)
	}
}

// stoppedFromOutside is the cause of an end that neither the agent nor the application has caused.
const stoppedFromOutside = "the application was stopped from outside"

// causeOfEnd describes for people why a hold has ended without an order of the agent. If the agent
// has ordered the end, the result is empty.
func (s *state) causeOfEnd(hold string) string {
	completed, failed := s.shims.Outcome(hold)
	switch {
	case hold == "" || hold != s.ended:
		return ""
	case s.deletion.known:
		return "this pod is being deleted"
	case failed:
		return "the application has failed"
	case completed:
		return "the application has ended with exit code 0"
	}
	return stoppedFromOutside
}

func count(m *status.Metrics, a elector.Action, err error) {
	switch a.Kind {
	case elector.Renew:
		m.Renewed(a.Sent(), err)
	case elector.Acquire, elector.Release:
		m.Wrote(err)
	default: // the metrics count only writes
	}
}
