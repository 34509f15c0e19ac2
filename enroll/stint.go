// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"math/rand/v2"
	"slices"
	"time"
)

// patience is the time after which a reconciliation creates no further Lease. Each slot takes two or
// three writes, and few namespaces are reconciled at the same time. So without this bound, a user
// with thousands of slots would delay the slots of all other namespaces.
const patience = time.Second

// stintTime bounds one of the smaller steps of a reconciliation. A reconciliation has five such
// steps beside the admission of slots and the sweep, and each of these two has [patience].
const stintTime = patience / 4

// stint bounds the time of a step. A user can make thousands of objects that need a write each. So
// without the bound, a few namespaces would keep all workers of enroll busy.
type stint struct {
	now func() time.Time
	// until is the end of the stint. Before the first call of the method "over", until is zero.
	until time.Time
	// postponed reports that the step has left work for the next reconciliation.
	postponed bool
}

// newStint returns a stint that begins with the first call of the method "over".
func newStint(now func() time.Time) *stint { return &stint{now: now} }

// over reports whether the step must leave the next piece of work for the next reconciliation. The
// first call returns false, so each reconciliation does something.
func (s *stint) over() bool {
	if s.until.IsZero() {
		s.until = s.now().Add(stintTime)
		return false
	}
	s.postponed = s.postponed || !s.now().Before(s.until)
	return s.postponed
}

// anyFirst returns the elements in their order, but begins with a random element. So elements that
// fail never keep others waiting.
func anyFirst[T any](all []T) []T {
	if len(all) == 0 {
		return nil
	}
	first := rand.IntN(len(all)) //nolint:gosec // no secret
	return slices.Concat(all[first:], all[:first])
}
