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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// slotsPerRole keeps a Role's memory below what an object's annotations may
	// have, 256 KiB: a Lease's name has 253 bytes at most, what is remembered of
	// it 66, so 500 take 160 KB. The rest is for annotations of others.
	slotsPerRole = 500
	// rolesPerAccount bounds what an API server reads for each request of an
	// agent. 16,000 slots are five times the pods that Kubernetes is tested with
	// in one namespace (3,000).
	rolesPerAccount = 32
)

// TooManySlots is the reason of the Event on a pod or workload whose service
// account has no room for its slot.
const TooManySlots = "TooManySlots"

// grant lets the accounts that claim compete for Leases that exist. It writes each
// Role once, whatever the number of Leases.
func (r *Reconciler) grant(ctx context.Context, l *look, fresh *ledgers, leases []*coordinationv1.Lease) error {
	asked := map[string][]*coordinationv1.Lease{}
	accounts := map[string]string{}
	for _, lease := range leases {
		for key, account := range l.wanted[lease.Name].accounts {
			asked[key] = append(asked[key], lease)
			accounts[key] = account
		}
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(asked)) {
		places, left := fresh.assign(key, accounts[key], l, asked[key])
		l.left = append(l.left, left...)
		for _, at := range places {
			if err := r.grantRole(ctx, at, accounts[key]); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// place is a Role that is to name Leases; changed says that it does not yet.
type place struct {
	*ledger
	changed bool
}

// assign finds each Lease its place in the Roles of an account: where it stands
// already, or the first with room, or a new one. It returns the slots that are
// left over.
func (ls *ledgers) assign(key, account string, l *look, leases []*coordinationv1.Lease) ([]*place, []string) {
	var (
		places []*place
		left   []string
	)
	known := map[*ledger]*place{}
	for _, lease := range leases {
		m := memory{Seconds: max(ls.longest[lease.Name], seconds(l.wanted[lease.Name].duration)), UID: lease.UID}
		at := ls.of(key, lease.Name)
		if len(at) == 0 {
			room := ls.room(key, account, l.namespace)
			if room == nil {
				left = append(left, lease.Name)
				continue
			}
			at = append(at, room)
		}
		for _, ledger := range at {
			p := known[ledger]
			if p == nil {
				p = &place{ledger: ledger, changed: !ledger.sound}
				known[ledger] = p
				places = append(places, p)
			}
			p.changed = p.changed || ledger.memories[lease.Name] != m
			ledger.memories[lease.Name] = m
		}
	}
	return places, left
}

// room is a Role of the account with room for another slot; a new one if need be,
// and nil if the account has too many.
func (ls *ledgers) room(key, account, namespace string) *ledger {
	roles := ls.byKey[key]
	for _, l := range roles {
		if len(l.memories) < slotsPerRole {
			return l
		}
	}
	for n := range rolesPerAccount {
		name := roleName(account, n)
		if slices.ContainsFunc(roles, func(l *ledger) bool { return l.role.Name == name }) {
			continue
		}
		l := &ledger{key: key, memories: map[string]memory{}, role: &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name,
			Labels:    map[string]string{api.ManagedLabel: managed},
		}}}
		ls.add(l)
		return l
	}
	return nil
}

// grantRole writes a Role, if it has changed, and binds it.
func (r *Reconciler) grantRole(ctx context.Context, at *place, account string) error {
	if at.changed {
		if err := at.remember(); err != nil {
			return err
		}
		if err := r.write(ctx, at.role); err != nil {
			return fmt.Errorf("grant leases to %s: %w", account, err)
		}
	}
	return r.bindRole(ctx, at.ledger, account)
}

// write creates or updates a Role.
func (r *Reconciler) write(ctx context.Context, role *rbacv1.Role) error {
	if role.UID != "" {
		return r.Client.Update(ctx, role)
	}
	err := r.Client.Create(ctx, role)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	var there rbacv1.Role
	if r.Reader.Get(ctx, client.ObjectKeyFromObject(role), &there) == nil && there.Labels[api.ManagedLabel] == "" {
		return fmt.Errorf("role %s: %w", role.Name, ErrForeign)
	}
	return err
}
