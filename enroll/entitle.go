// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

const (
	// maxSlotsPerRole keeps a Role's annotation below the 256 KiB that Kubernetes
	// allows for all annotations of an object. The record of a Lease has at most 253 bytes
	// for the Lease's name, and 66 other bytes. So the records of 500 slots take 160 KB, and the
	// remaining bytes are left for other annotations.
	maxSlotsPerRole = 500
	// maxRolesPerAccount bounds the Roles that an API server reads for each request
	// of an agent. These Roles have room for 16,000 slots, five times the number of
	// pods with which Kubernetes is tested in one namespace (3,000).
	maxRolesPerAccount = 32
)

// TooManySlots is the reason of an Event on a pod or workload. The Event means that the Roles of
// the service account have no room for a slot, a condition or a Variable.
const TooManySlots = "TooManySlots"

// entitle gives each account rights on those of the given Leases that the account's pods claim. The
// function writes each Role at most once, whatever the number of Leases. The result "left" has the
// slots for which the Roles of an account have no room.
func (a *admission) entitle(ctx context.Context, roles *agentRoles, leases []*coordinationv1.Lease) (left []string, err error) {
	claimed := map[string][]*coordinationv1.Lease{}
	accounts := map[string]string{}
	for _, lease := range leases {
		for key, account := range a.seen.Claims[lease.Name].Accounts {
			claimed[key] = append(claimed[key], lease)
			accounts[key] = account
		}
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(claimed)) {
		assignments, without := roles.assign(key, accounts[key], a.seen, claimed[key])
		left = append(left, without...)
		for _, to := range assignments {
			if err := a.entitleRole(ctx, to, accounts[key]); err != nil {
				for _, lease := range claimed[key] {
					a.refused.add(err, a.seen.wanted.first[lease.Name])
				}
				errs = append(errs, err)
			}
		}
	}
	return left, errors.Join(errs...)
}

// entitleRole writes the Role if the Role has changed, and binds the Role to the account.
func (s store) entitleRole(ctx context.Context, to *assignment, account string) error {
	if to.changed {
		if err := to.remember(); err != nil {
			return err
		}
		if err := s.writeRole(ctx, to.role); err != nil {
			return fmt.Errorf("grant leases to %s: %w", account, err)
		}
	}
	return s.bindRole(ctx, to.role, account)
}

// assignment is a Role that is going to name Leases.
type assignment struct {
	*agentRole
	// changed reports that the Role must be written, because its rules or its annotation are not
	// yet as they must be.
	changed bool
}

// assign adds each Lease to a Role of the account. The Role either names the
// Lease already, or is the first with room, or is new. The results are those
// Roles, and the slots for which the account has no room.
func (rs *agentRoles) assign(key, account string, seen *snapshot, leases []*coordinationv1.Lease) ([]*assignment, []string) {
	var (
		assignments []*assignment
		left        []string
	)
	known := map[*agentRole]*assignment{}
	for _, lease := range leases {
		m := rs.Memory(lease.Name, string(lease.UID), seen.Claims[lease.Name])
		roles := rs.of(key, lease.Name)
		if len(roles) == 0 {
			role := rs.makeRoom(key, account, seen.namespace)
			if role == nil {
				left = append(left, lease.Name)
				continue
			}
			roles = append(roles, role)
		}
		for _, role := range roles {
			to := known[role]
			if to == nil {
				to = &assignment{agentRole: role, changed: !role.sound}
				known[role] = to
				assignments = append(assignments, to)
			}
			to.changed = to.changed || role.Memories[lease.Name] != m
			role.Memories[lease.Name] = m
		}
	}
	return assignments, left
}

// makeRoom returns a Role of the account that has room for a further slot, and adds a new Role if
// no Role has room. If the account already has [maxRolesPerAccount] full Roles, the result is nil.
func (rs *agentRoles) makeRoom(key, account, namespace string) *agentRole {
	roles := rs.byKey[key]
	for _, r := range roles {
		if len(r.Memories) < maxSlotsPerRole {
			return r
		}
	}
	names := unusedNames(roles, account)
	if len(names) == 0 {
		return nil
	}
	r := &agentRole{Role: step.Role{Name: names[0], Key: key, Memories: map[string]step.Memory{}}, role: &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace,
		Name:      names[0],
		Labels:    map[string]string{api.ManagedLabel: managed},
	}}}
	rs.add(r)
	return r
}

// room returns for how many further slots [agentRoles.makeRoom] finds room in the account's Roles.
func (rs *agentRoles) room(key, account string) int {
	roles := rs.byKey[key]
	room := maxSlotsPerRole * len(unusedNames(roles, account))
	for _, r := range roles {
		room += max(maxSlotsPerRole-len(r.Memories), 0)
	}
	return room
}

// unusedNames returns the names that the account's Roles can have, and that none of the given Roles
// has.
func unusedNames(roles []*agentRole, account string) []string {
	var names []string
	for n := range maxRolesPerAccount {
		name := roleName(account, n)
		if !slices.ContainsFunc(roles, func(r *agentRole) bool { return r.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// incomplete returns the claimed slots that lack their Lease, their next Lease, or a right of a
// claimant. The result "left" has the slots for which the Roles of an account have no room. A slot
// is in both results if enroll can still do something for another account.
//
// The decision needs only the cache. Room appears only if a Role changes, or if a claim ends. Both
// changes cause a new snapshot, so no slot waits for a check by the clock.
func (s *snapshot) incomplete() (slots, left []string) {
	var lacking []string
	for slot, c := range s.Claims {
		if !s.complete(slot, c.Accounts) {
			lacking = append(lacking, slot)
		}
	}
	slices.Sort(lacking)
	room := map[string]int{}
	for _, slot := range lacking {
		entitled := s.entitled(slot, room)
		if len(entitled) < len(s.Claims[slot].Accounts) {
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
	for key, account := range s.Claims[slot].Accounts {
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
