// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// MaxSlotsPerRole keeps a Role's annotation below the 256 KiB that Kubernetes
	// allows for all annotations of an object. The record of a Lease has at most 253 bytes
	// for the Lease's name, and 66 other bytes. So the records of 500 slots take 160 KB, and the
	// remaining bytes are left for other annotations.
	MaxSlotsPerRole = 500
	// MaxRolesPerAccount bounds the Roles that an API server reads for each request
	// of an agent. These Roles have room for 16,000 slots, five times the number of
	// pods with which Kubernetes is tested in one namespace (3,000).
	MaxRolesPerAccount = 32
)

// Memory is a Role's record of one Lease.
type Memory struct {
	// Seconds is the longest duration ever claimed under the Lease's name.
	Seconds int32 `json:"seconds"`
	// UID is the UID of the last Lease with the recorded name. If the Lease is created again,
	// enroll writes the new UID into the Role. That write changes the Role's version. So a sweep
	// that judged the earlier Lease fails to write the Role.
	UID string `json:"uid"`
}

// Seconds rounds up, because a Lease stores whole seconds.
func Seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }

// Role is a Role that lets agents of one service account hold Leases.
type Role struct {
	Name string
	// Key identifies the service account. If the Role's name tells none, Key is empty.
	Key      string
	Memories map[string]Memory
	// Sound reports that the Role's rules are exactly those that enroll would write for the Role's
	// memory. Bound reports that the Role is bound to its account alone.
	Sound, Bound bool
}

// Roles are the Roles of a namespace that let agents hold Leases.
type Roles struct {
	All []*Role
	// byKey are the Roles of each account, by the account's key.
	byKey map[string][]*Role
	// Longest are the longest lease durations, in seconds, that any Role remembers for
	// each Lease. Every Lease that a Role names has an entry.
	Longest map[string]int32
}

// Add adds a Role with all its memories.
func (rs *Roles) Add(r *Role) {
	rs.All = append(rs.All, r)
	if rs.Longest == nil {
		rs.byKey, rs.Longest = map[string][]*Role{}, map[string]int32{}
	}
	if r.Key != "" {
		rs.byKey[r.Key] = append(rs.byKey[r.Key], r)
	}
	for lease, m := range r.Memories {
		rs.Longest[lease] = max(rs.Longest[lease], m.Seconds)
	}
}

// Named reports whether a Role remembers the Lease.
func (rs *Roles) Named(lease string) bool {
	_, ok := rs.Longest[lease]
	return ok
}

// Memory returns what each Role of the slot's claimants must remember of the slot's Lease.
func (rs *Roles) Memory(slot, uid string, claim *Claim) Memory {
	return Memory{Seconds: max(rs.Longest[slot], Seconds(claim.Duration)), UID: uid}
}

// Duration returns the longest lease duration that any Role remembers for the Lease.
func (rs *Roles) Duration(lease string) time.Duration {
	return time.Duration(rs.Longest[lease]) * time.Second
}

// of returns the Roles of an account that remember the Lease. After a race of two
// processes, several Roles may remember the Lease.
func (rs *Roles) of(key, lease string) []*Role {
	var found []*Role
	for _, r := range rs.byKey[key] {
		if _, ok := r.Memories[lease]; ok {
			found = append(found, r)
		}
	}
	return found
}

// Assignment is a Role that is going to name Leases.
type Assignment struct {
	*Role
	// Changed reports that the Role must be written, because its rules or its annotation are not
	// yet as they must be.
	Changed bool
}

// Assign adds each Lease to a Role of the account. The Role either names the
// Lease already, or is the first with room, or is new. The results are those
// Roles, and the slots for which the account has no room.
func (rs *Roles) Assign(key, account string, wanted Claims, leases []*Lease) ([]*Assignment, []string) {
	var (
		assignments []*Assignment
		left        []string
	)
	known := map[*Role]*Assignment{}
	for _, lease := range leases {
		m := rs.Memory(lease.Name, lease.UID, wanted[lease.Name])
		roles := rs.of(key, lease.Name)
		if len(roles) == 0 {
			role := rs.makeRoom(key, account)
			if role == nil {
				left = append(left, lease.Name)
				continue
			}
			roles = append(roles, role)
		}
		for _, role := range roles {
			to := known[role]
			if to == nil {
				to = &Assignment{Role: role, Changed: !role.Sound}
				known[role] = to
				assignments = append(assignments, to)
			}
			to.Changed = to.Changed || role.Memories[lease.Name] != m
			role.Memories[lease.Name] = m
		}
	}
	return assignments, left
}

// makeRoom returns a Role of the account that has room for a further slot, and adds a new Role if
// no Role has room. If the account already has [MaxRolesPerAccount] full Roles, the result is nil.
func (rs *Roles) makeRoom(key, account string) *Role {
	roles := rs.byKey[key]
	for _, r := range roles {
		if len(r.Memories) < MaxSlotsPerRole {
			return r
		}
	}
	names := unusedNames(roles, account)
	if len(names) == 0 {
		return nil
	}
	r := &Role{Name: names[0], Key: key, Memories: map[string]Memory{}}
	rs.Add(r)
	return r
}

// room returns for how many further slots [Roles.makeRoom] finds room in the account's Roles.
func (rs *Roles) room(key, account string) int {
	roles := rs.byKey[key]
	room := MaxSlotsPerRole * len(unusedNames(roles, account))
	for _, r := range roles {
		room += max(MaxSlotsPerRole-len(r.Memories), 0)
	}
	return room
}

// unusedNames returns the names that the account's Roles can have, and that none of the given Roles
// has.
func unusedNames(roles []*Role, account string) []string {
	var names []string
	for n := range MaxRolesPerAccount {
		name := RoleName(account, n)
		if !slices.ContainsFunc(roles, func(r *Role) bool { return r.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// Incomplete returns the claimed slots that lack their Lease, their next Lease, or a right of a
// claimant. The result "left" has the slots for which the Roles of an account have no room. A slot
// is in both results if enroll can still do something for another account.
//
// The decision needs only the cache. Room appears only if a Role changes, or if a claim ends. Both
// changes cause a new snapshot, so no slot waits for a check by the clock.
func (f *Facts) Incomplete() (slots, left []string) {
	var lacking []string
	for slot, c := range f.Claims {
		if !f.complete(slot, c.Accounts) {
			lacking = append(lacking, slot)
		}
	}
	slices.Sort(lacking)
	room := map[string]int{}
	for _, slot := range lacking {
		entitled := f.entitled(slot, room)
		if len(entitled) < len(f.Claims[slot].Accounts) {
			left = append(left, slot)
		}
		if !f.complete(slot, entitled) {
			slots = append(slots, slot)
		}
	}
	return slots, left
}

// entitled returns those claimants of a slot whose Roles name the slot, or have room for the slot.
// The map "room" has the remaining room of each account, and loses the room that the slot takes.
func (f *Facts) entitled(slot string, room map[string]int) map[string]string {
	entitled := map[string]string{}
	for key, account := range f.Claims[slot].Accounts {
		if len(f.Roles.of(key, slot)) == 0 {
			if _, ok := room[key]; !ok {
				room[key] = f.Roles.room(key, account)
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

// complete reports whether the slot lacks nothing for the given accounts, as [Facts.Sufficient]
// judges. Without these accounts, the slot needs a Lease only if a Role names the Lease. An agent
// may have held such a Lease, so enroll makes the Lease again, with the holder [Unknown].
func (f *Facts) complete(slot string, accounts map[string]string) bool {
	lease := f.Leases[slot]
	if lease == nil {
		return len(accounts) == 0 && !f.Roles.Named(slot)
	}
	return f.Sufficient(slot, lease.UID, accounts)
}

// Sufficient reports whether each of the accounts may write the Lease of a claimed slot. If the
// slot needs a next Lease, that Lease must exist, too. The account's Role must be bound, and must
// name this very Lease. The Role must also remember the longest lease duration that a claim of the
// slot names, or that any Role remembers.
func (f *Facts) Sufficient(slot, uid string, accounts map[string]string) bool {
	if api.HasNextLease(slot) && f.Leases[api.NextLease(slot)] == nil {
		return false
	}
	m := f.Roles.Memory(slot, uid, f.Claims[slot])
	for key := range accounts {
		at := f.Roles.of(key, slot)
		if len(at) == 0 || slices.ContainsFunc(at, func(known *Role) bool {
			return !known.Sound || !known.Bound || known.Memories[slot] != m
		}) {
			return false
		}
	}
	return true
}
