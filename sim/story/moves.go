// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"time"

	"github.com/metaparticle-io/metaparticle/sim/world"
)

// moves judges why the slot [rolled] moves. A hold ends because its application hangs only after a
// minute, and each later time only after twice as long, up to an hour. A preference moves the slot
// at most once in [world.Settled], never during a rollout, and to no pod whose application hung last.
type moves struct {
	*workloads
	// seen counts the moves that are judged. The field "hangs" counts those because of a hang since an
	// application has served for [world.Forget], and the field "hung" is the pod of the last one.
	// The field "most" counts them by the slowest clock.
	seen, hangs, most int
	hung              *world.Pod
	// child is the holder's child, which serves since the instant "since"; zero if it does not serve.
	child *world.Child
	since time.Duration
	// preferred is the instant of the last move by preference.
	preferred time.Duration
}

func newMoves(c *workloads) *moves { return &moves{workloads: c} }

// watch judges the moves again and again.
func (m *moves) watch() {
	m.After(time.Second, func() {
		m.judge()
		m.learn()
		m.watch()
	})
}

// learn notes how long the holder's child has served.
func (m *moves) learn() {
	c := m.Checks.Holder(rolled)
	if c == nil || c != m.child || !c.Serves() {
		m.child, m.since = c, 0
	}
	if c != nil && c.Serves() && m.since == 0 {
		m.since = m.Now()
	}
	if m.since > 0 && m.Now()-m.since >= fast(world.Forget) {
		m.hangs, m.hung = 0, nil
	}
	if m.since > 0 && m.Now()-m.since >= world.Slow(world.Forget+world.Proof)+5*time.Second {
		m.most = 0
	}
}

// fast returns the true time that passes while the fastest clock counts the duration.
func fast(d time.Duration) time.Duration { return time.Duration(float64(d) / (1 + world.Skew)) }

// rest returns how long a hold must last before a hang ends it, after this number of such ends.
func rest(hangs int) time.Duration { return min(time.Minute<<min(hangs, 6), time.Hour) }

// held returns the time for which the present child has run under one agent process.
func (m *moves) held() time.Duration {
	if c := m.Checks.Holder(rolled); c != nil {
		return c.Held()
	}
	return 0
}

func (m *moves) judge() {
	all := m.Checks.Moves()
	for _, move := range all[m.seen:] {
		switch c := move.Child; {
		case move.Hung:
			if move.Held < fast(rest(m.hangs)) {
				m.Violate(world.Wanders, "%s hangs, and stops after %v, not %v", c.Name, move.Held, rest(m.hangs))
			}
			m.hangs, m.most, m.hung = m.hangs+1, m.most+1, c.Pod()
		case move.Wish == "preferred":
			m.judgePreference(move)
		}
	}
	m.seen = len(all)
}

func (m *moves) judgePreference(move world.Move) {
	since := m.Now() - m.preferred
	switch {
	case move.Held < fast(world.Settled) || m.preferred > 0 && since < fast(world.Settled):
		m.Violate(world.Wanders, "%s yields to a preferred pod after %v, %v after the last such move", move.Child.Name, move.Held, since)
	case move.Newer:
		m.Violate(world.Wanders, "%s yields to a preferred pod in a rollout", move.Child.Name)
	case m.hung != nil && m.hung.Identity() == move.To:
		m.Violate(world.Wanders, "%s yields to %s, whose application hung last", move.Child.Name, move.To)
	}
	for _, p := range m.Pods {
		if p.Identity() == move.To && (!p.Preferred() || p.Revision != move.Child.Pod().Revision) {
			m.Violate(world.Wanders, "%s yields to %s, which its template does not prefer", move.Child.Name, p.Name)
		}
	}
	m.preferred = m.Now()
}
