// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// deletion has the API server's answers about the pod's deletion.
//
// The kubelet stops the containers of a deleted pod by itself. But the kubelet's stop signal is
// lost if the shim's process does not exist yet. An application that started after such a signal
// would run on until the grace is over. So an agent that knows of its pod's deletion begins no
// hold. The agent gives back a hold that began just before the agent learned of the deletion. An
// older hold goes on.
//
// A controller may delete all pods of a workload at once, and the holder may end before a standby
// knows of its own deletion. So for each new hold the agent checks whether its own pod is being
// deleted. A standby that expects the slot checks ahead, while another pod still holds. If no
// check ahead counts, the agent checks with the acquiring write or directly after that write. Then
// the agent grants nothing before the check has ended.
type deletion struct {
	// known reports that the pod is being deleted.
	known bool
	// answeredIn is the last hold during which the API server answered whether the pod is being
	// deleted.
	answeredIn string
	// deletedIn is the last hold during which the API server's first answer was that the pod is
	// being deleted.
	deletedIn string
	// checks counts the checks for the pod's deletion that have begun. The field "ended" is the
	// number of the latest check that has ended.
	checks, ended int
	// ahead has, by slot, the last hold of another pod during which this standby checked for its own
	// deletion. The last such check, ahead of the standby's own hold, began at the instant "aheadAt".
	// The field "cleared" reports that this check found no deletion.
	ahead   map[string]string
	aheadAt time.Duration
	cleared bool
}

// clearFor is the time for which a check ahead counts. In a check ahead, a standby learns during
// another pod's hold whether the standby itself is being deleted. Most applications end within
// this time after their stop signal. A standby that is deleted within this time after its check
// may start its application. The first status write then reports the deletion, and the agent
// gives back the hold.
const clearFor = 5 * time.Second

// clearedAhead reports whether the check ahead has found no deletion, and still counts.
func (d *deletion) clearedAhead(now time.Duration) bool { return d.cleared && now < d.aheadAt+clearFor }

// expect learns that this standby expects the slot after the given hold of another pod. The
// result is true if the agent must now check whether its own pod is being deleted. The agent
// checks once for each such hold, and at most once in clearFor.
func (d *deletion) expect(slot, hold string, now time.Duration) bool {
	if hold == "" || d.ahead[slot] == hold || len(d.ahead) > 0 && now < d.aheadAt+clearFor {
		return false
	}
	if d.ahead == nil {
		d.ahead = map[string]string{}
	}
	d.ahead[slot], d.aheadAt, d.cleared = hold, now, false
	return true
}

// learn stores the answer of the API server: whether the pod is being deleted. If the argument
// "hold" is empty, learn sets only the field "known". Otherwise the argument names the hold
// during which the agent sent the request. Only the first answer for that hold can set the field
// "deletedIn".
func (d *deletion) learn(hold string, deleted bool) {
	d.known = d.known || deleted
	if hold == "" || hold == d.answeredIn {
		return
	}
	d.answeredIn = hold
	if deleted {
		d.deletedIn = hold
	}
}

// beginCheck counts a check that begins, and returns its number.
func (d *deletion) beginCheck() (number int) {
	d.checks++
	return d.checks
}

// endCheck receives the result of a check that the agent sent for the hold. If the pod is being
// deleted, endCheck stores that result as the first answer of the hold. If not, endCheck drops the
// result, because the pod may be deleted after the check. So the answer to the hold's first status
// write becomes the first answer.
func (d *deletion) endCheck(number int, hold string, deleted bool) {
	d.ended = max(d.ended, number)
	if deleted {
		d.learn(hold, true)
	}
}

// checking reports whether the last check is still under way.
func (d *deletion) checking() bool { return d.ended < d.checks }

// gone reports whether the pod no longer exists in the API server, because somebody deleted the
// pod by force.
func gone(err error) bool { return errors.Is(err, kube.ErrNotFound) }

// sendCheckAhead checks whether the pod is being deleted, while the hold of another pod still lasts.
// The standby expects the slot after that hold. The method ReadDeletion sends a patch of the pod.
// After the hold, this patch would compete with the acquiring write for the API server's
// processors.
func (s *state) sendCheckAhead(ctx context.Context) {
	began := s.deletion.aheadAt
	s.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
		defer cancel()
		pod, err := s.config.API.ReadDeletion(bounded, s.config.PodName)
		s.posts.post(ctx, func(time.Duration) {
			s.deletion.learn("", pod.Deleted || gone(err))
			s.deletion.cleared = err == nil && !pod.Deleted && began == s.deletion.aheadAt
		})
	})
}

// checkDeletion checks whether the pod is being deleted. The grant waits for the answer, which
// normally comes at about the same time as the answer to the acquiring write. Without an
// answer, the grant waits no longer than Budget.Retry.
func (s *state) checkDeletion(ctx context.Context, hold string) {
	s.checked = hold
	number := s.deletion.beginCheck()
	s.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, min(s.self.Budget.RequestTimeout, s.self.Budget.Retry))
		defer cancel()
		pod, err := s.config.API.ReadDeletion(bounded, s.config.PodName)
		if err != nil {
			s.config.Log.Debug("deletion is not known", "hold", hold, "err", err)
		}
		s.posts.post(ctx, func(time.Duration) { s.deletion.endCheck(number, hold, pod.Deleted || gone(err)) })
	})
}

// learnDeletion reads the pod once, if only the pod's deletion can explain the end of the
// application. The release does not wait for the answer.
func (s *state) learnDeletion(ctx context.Context) {
	if s.causeOfEnd(s.ended) != stoppedFromOutside {
		return
	}
	s.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
		defer cancel()
		if pod, err := s.config.API.ReadDeletion(bounded, s.config.PodName); err == nil {
			s.posts.post(ctx, func(time.Duration) { s.deletion.learn("", pod.Deleted) })
		}
	})
}
