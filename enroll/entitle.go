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

// TooManySlots is the reason of an Event on a pod or workload. The Event means that the Roles of
// the service account have no room for a slot, a condition or a Variable.
const TooManySlots = "TooManySlots"

// entitle gives each account rights on those of the given Leases that the account's pods claim. The
// function writes each Role at most once, whatever the number of Leases. The result "left" has the
// slots for which the Roles of an account have no room.
func (a *admission) entitle(ctx context.Context, roles *agentRoles, leases []*coordinationv1.Lease) (left []string, err error) {
	claimed := map[string][]*step.Lease{}
	accounts := map[string]string{}
	for _, lease := range leases {
		for key, account := range a.seen.Claims[lease.Name].Accounts {
			claimed[key] = append(claimed[key], seenLease(lease))
			accounts[key] = account
		}
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(claimed)) {
		assignments, without := roles.Assign(key, accounts[key], a.seen.Claims, claimed[key])
		left = append(left, without...)
		for _, to := range assignments {
			if err := a.entitleRole(ctx, roles.objects[to.Name], to, accounts[key]); err != nil {
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
func (a *admission) entitleRole(ctx context.Context, role *rbacv1.Role, to *step.Assignment, account string) error {
	if role == nil {
		role = &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
			Namespace: a.seen.namespace, Name: to.Name, Labels: map[string]string{api.ManagedLabel: managed},
		}}
	}
	if to.Changed {
		if err := remember(role, to.Memories); err != nil {
			return err
		}
		if err := a.writeRole(ctx, role); err != nil {
			return fmt.Errorf("grant leases to %s: %w", account, err)
		}
	}
	return a.bindRole(ctx, role, account)
}
