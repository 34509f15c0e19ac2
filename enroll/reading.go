// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// reading gives accounts the right to read the Leases of their pods' conditions. Each
// account has one Role for that, whose rules are all that enroll remembers.
type reading struct {
	store
	seen *snapshot
	// left are the Leases for which a Role has no room.
	left []excess
}

// grant writes the Roles that differ from the conditions, and withdraws the Roles of accounts
// without conditions.
//
// Unlike the right of an agent, the right of a reader protects no slot. So enroll withdraws that
// right at once, and lists no pods before. A pod that the cache does not know yet only waits
// longer. Its arrival in the cache is an event, after which its account has the right again.
func (r *reading) grant(ctx context.Context) error {
	var errs []error
	needed := make(map[string]bool, len(r.seen.awaited))
	for _, account := range slices.Sorted(maps.Keys(r.seen.awaited)) {
		needed[ReaderRoleName(account)] = true
		errs = append(errs, r.grantTo(ctx, account, r.seen.awaited[account]))
	}
	for _, name := range slices.Sorted(maps.Keys(r.seen.roles.readers)) {
		if !needed[name] {
			errs = append(errs, r.deleteRole(ctx, r.seen.roles.readers[name].role))
		}
	}
	return errors.Join(errs...)
}

// grantTo lets an account read the Leases of its conditions, and no others.
func (r *reading) grantTo(ctx context.Context, account string, awaited map[string]client.Object) error {
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
		Namespace: r.seen.namespace,
		Name:      ReaderRoleName(account),
		Labels:    map[string]string{api.ManagedLabel: managed},
	}}
	bound := ""
	if known := r.seen.roles.readers[role.Name]; known != nil {
		role, bound = known.role, known.account
	}
	names, left := readable(role, awaited)
	for _, name := range left {
		r.left = append(r.left, excess{first: awaited[name], problem: fmt.Sprintf(
			"A condition on %s waits: its service account has conditions on more than %d Leases in this namespace", name, maxSlotsPerRole)})
	}
	wanted := ReaderRules(names...)
	if !reflect.DeepEqual(role.Rules, wanted) {
		// The cache owns the Role.
		role = role.DeepCopy()
		role.Rules = wanted
		if err := r.writeRole(ctx, role); err != nil {
			return fmt.Errorf("let %s read leases: %w", account, err)
		}
	} else if bound == account {
		return nil
	}
	return r.bindRole(ctx, role, account)
}

// readable returns the Leases that a Role is to name, sorted, and those for which the Role has
// no room. The Leases that the Role names already come first, so no pod loses its right to the
// condition of a later pod.
func readable(role *rbacv1.Role, awaited map[string]client.Object) (names, left []string) {
	names = slices.Sorted(maps.Keys(awaited))
	if len(names) <= maxSlotsPerRole {
		return names, nil
	}
	already := map[string]bool{}
	for _, rule := range role.Rules {
		for _, name := range rule.ResourceNames {
			already[name] = true
		}
	}
	first := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !already[name] })
	rest := slices.DeleteFunc(names, func(name string) bool { return already[name] })
	all := append(first, rest...)
	names = slices.Sorted(slices.Values(all[:maxSlotsPerRole]))
	return names, all[maxSlotsPerRole:]
}
