// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"sync"
	"time"
)

// spells remembers, by namespace, since when each fault has lasted, and which faults have an Event.
type spells struct {
	mu  sync.Mutex
	all map[string]map[string]spell
}

// spell is the time of one fault without interruption.
type spell struct {
	since    time.Time
	notified bool
}

// observe replaces the faults of a namespace. The result "due" has the
// faults that have lasted for the time "notice", each once. The result "again" is the time until the
// next fault is due, or zero.
func (n *spells) observe(namespace string, faults []string, notice time.Duration, now time.Time) (due []string, again time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before, after := n.all[namespace], map[string]spell{}
	for _, fault := range faults {
		s, known := before[fault]
		if !known {
			s.since = now
		}
		if left := s.since.Add(notice).Sub(now); left > 0 {
			again = sooner(again, left)
		} else if !s.notified {
			s.notified = true
			due = append(due, fault)
		}
		after[fault] = s
	}
	if n.all == nil {
		n.all = map[string]map[string]spell{}
	}
	if n.all[namespace] = after; len(after) == 0 {
		delete(n.all, namespace)
	}
	return due, again
}

// forget drops all faults of a namespace that is gone.
func (n *spells) forget(namespace string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.all, namespace)
}
