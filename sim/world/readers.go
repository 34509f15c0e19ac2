// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strconv"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
)

// passing means that a reader takes a slot although another pod has had the intent for a while.
const passing = "passing"

// slots returns the slots of the hold that the line describes. A writer has all slots of the lock.
func (t told) slots() []string {
	if t.As != "writer" {
		return []string{t.Slot}
	}
	name := strings.TrimPrefix(t.Slot[:strings.LastIndexByte(t.Slot, '.')], "rwlock.")
	return api.Claim{Kind: api.RWLock, Name: name}.Slots(api.Workload{})
}

// checkReadWrite demands that a writer works alone, and that its token is greater than each
// earlier token. A reader's token must be greater than each earlier writer's token.
func checkReadWrite(l *checks, k *work) {
	b := k.bidder
	if b.claim.Kind != api.RWLock {
		return
	}
	writes := len(k.slots) > 1
	if writes != b.writes || !writes && !slices.Contains(b.claim.Slots(api.Workload{})[1:1+b.claim.Size], k.slot) {
		l.Violate(twoAtOnce, "%s works under %v", b.name, k.slots)
	}
	for _, other := range l.works {
		if other.bidder.claim.Name == b.claim.Name && (writes || len(other.slots) > 1) && !workAbsent(other) {
			l.Violate(twoAtOnce, "%s works while %s works, and one of them writes", b.name, other.bidder.name)
		}
	}
	value, _ := strconv.ParseInt(k.token, 10, 64)
	for _, of := range []string{"any", "writer"} {
		last := l.tokens[of+" of "+b.claim.Name]
		if (writes || of == "writer") && last.hold != k.hold && value <= last.value {
			l.Violate(tokenOrder, "%s has token %d, and an earlier hold had %d", b.name, value, last.value)
		}
		if (writes || of == "any") && value >= last.value {
			l.tokens[of+" of "+b.claim.Name] = token{k.hold, value}
		}
	}
}
