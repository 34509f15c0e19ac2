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

// slots returns the slots of the hold that the line describes. A writer holds all slots of the
// lock.
func (t told) slots() []string {
	if t.As != "writer" {
		return []string{t.Slot}
	}
	name := strings.TrimPrefix(t.Slot[:strings.LastIndexByte(t.Slot, '.')], "rwlock.")
	return api.Claim{Kind: api.RWLock, Name: name}.Slots(api.Workload{})
}

// checkReadWrite demands that a writer works alone. A writer's token must be greater than each
// earlier token. A reader's token must be greater than each earlier writer's token.
func checkReadWrite(l *checks, k *work) {
	b := k.bidder
	if b.Claim.Kind != api.RWLock {
		return
	}
	writes := len(k.slots) > 1
	if writes != b.Writes || !writes && !slices.Contains(b.Claim.Slots(api.Workload{})[1:1+b.Claim.Size], k.slot) {
		l.Violate(twoAtOnce, "%s works under %v", b.Name, k.slots)
	}
	for _, other := range l.works {
		if other.bidder.Claim.Name == b.Claim.Name && (writes || len(other.slots) > 1) && !workAbsent(other) {
			l.Violate(twoAtOnce, "%s works while %s works, and one of them writes", b.Name, other.bidder.Name)
		}
	}
	value, _ := strconv.ParseInt(k.token, 10, 64)
	for _, of := range []string{"any", "writer"} {
		last := l.tokens[of+" of "+b.Claim.Name]
		if (writes || of == "writer") && last.hold != k.hold && value <= last.value {
			l.Violate(tokenOrder, "%s has token %d, and an earlier hold had %d", b.Name, value, last.value)
		}
		if (writes || of == "any") && value >= last.value {
			l.tokens[of+" of "+b.Claim.Name] = token{k.hold, value}
		}
	}
}
