// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import "slices"

// incomplete returns the claimed slots that lack their Lease, their next Lease, or a right of a
// claimant. The result "left" has the slots for which the Roles of an account have no room. A slot
// is in both results if enroll can still do something for another account.
//
// The decision needs only the cache. Room appears only if a Role changes, or if a claim ends. Both
// changes cause a new snapshot, so no slot waits for a check by the clock.
func (s *snapshot) incomplete() (slots, left []string) {
	var lacking []string
	for slot, c := range s.wanted {
		if !s.complete(slot, c.accounts) {
			lacking = append(lacking, slot)
		}
	}
	slices.Sort(lacking)
	room := map[string]int{}
	for _, slot := range lacking {
		entitled := s.entitled(slot, room)
		if len(entitled) < len(s.wanted[slot].accounts) {
			left = append(left, slot)
		}
		if !s.complete(slot, entitled) {
			slots = append(slots, slot)
		}
	}
	return slots, left
}

// entitled returns those claimants of a slot whose Roles name the slot, or have room for the slot.
// The map "room" has the remaining room of each account, and loses the room that the slot takes.
func (s *snapshot) entitled(slot string, room map[string]int) map[string]string {
	entitled := map[string]string{}
	for key, account := range s.wanted[slot].accounts {
		if len(s.roles.of(key, slot)) == 0 {
			if _, ok := room[key]; !ok {
				room[key] = s.roles.room(key, account)
			}
			if room[key] == 0 {
				continue
			}
			room[key]--
		}
		entitled[key] = account
	}
	return entitled
}
