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
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// singleRoles gives accounts rights on objects by the names of the objects. Each account has one Role
// for these rights. The rules of that Role show which rights enroll has given before.
type singleRoles struct {
	store
	seen *snapshot
	// prefix begins the names of the Roles, and the function "rules" returns the rights on the
	// named objects.
	prefix string
	rules  func(names ...string) []rbacv1.PolicyRule
	// objects has, for each account, the objects that the account's pods need.
	objects needs
	// prepare, if not nil, is called for each object before a Role first names the object.
	prepare func(ctx context.Context, name string) error
	// waits is the format of the message about an object for which a Role has no room. The two
	// arguments of the format are the object's name and [step.MaxSlotsPerRole]. The field "left" has
	// these messages.
	waits   string
	left    []excess
	refused refusals
	// giving bounds the time in which enroll gives rights, and taking the time in which enroll
	// withdraws them. So Roles that cannot be written never keep enroll from withdrawing rights.
	giving, taking *stint
}

// newConditionRoles returns the [singleRoles] that lets accounts read the Leases of their pods' conditions.
func newConditionRoles(s store, seen *snapshot, now func() time.Time) *singleRoles {
	return &singleRoles{
		store: s, seen: seen, prefix: step.ConditionPrefix, giving: newStint(now), taking: newStint(now), rules: ConditionRules, objects: seen.awaited,
		waits: "A condition on %s waits: its service account has conditions on more than %d Leases in this namespace",
	}
}

// entitle writes each Role that differs from what the account's pods need, and deletes the Roles
// of accounts whose pods need nothing.
//
// Unlike the right of an agent on a Lease, these rights protect no slot. So enroll immediately
// withdraws them, without a consistent list of the pods. A pod that is not yet in the cache may
// lose its right. When the cache receives the pod, enroll gives the pod's account the right again.
func (r *singleRoles) entitle(ctx context.Context) error {
	var errs []error
	needed := make(map[string]bool, len(r.objects))
	for _, account := range anyFirst(slices.Sorted(maps.Keys(r.objects))) {
		needed[step.SingleRoleName(r.prefix, account)] = true
		err := r.entitleTo(ctx, account, r.objects[account])
		for _, first := range r.objects[account] {
			r.refused.add(err, first)
		}
		errs = append(errs, err)
	}
	for _, name := range anyFirst(slices.Sorted(maps.Keys(r.seen.roles.singles))) {
		role := r.seen.roles.singles[name].role
		if strings.HasPrefix(name, r.prefix) && !needed[name] && role.DeletionTimestamp == nil && !r.taking.over() {
			errs = append(errs, r.deleteRole(ctx, role))
		}
	}
	return errors.Join(errs...)
}

// postponed reports whether the next reconciliation must go on.
func (r *singleRoles) postponed() bool { return r.giving.postponed || r.taking.postponed }

// entitleTo gives an account the rights on the objects that its pods name, and on no others. If the
// Role has no room for an object, the field "left" gets a message about that object.
func (r *singleRoles) entitleTo(ctx context.Context, account string, objects map[string]client.Object) error {
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
		Namespace: r.seen.namespace,
		Name:      step.SingleRoleName(r.prefix, account),
		Labels:    map[string]string{api.ManagedLabel: managed},
	}}
	bound := ""
	if known := r.seen.roles.singles[role.Name]; known != nil {
		role, bound = known.role, known.account
	}
	names, left := namesFor(role, objects)
	for _, name := range left {
		r.left = append(r.left, excess{first: objects[name], problem: fmt.Sprintf(r.waits, name, step.MaxSlotsPerRole)})
	}
	wanted := r.rules(names...)
	complete := reflect.DeepEqual(role.Rules, wanted)
	if complete && bound == account || r.giving.over() {
		return nil
	}
	if !complete {
		if err := r.prepareNew(ctx, role, names); err != nil {
			return err
		}
		// The cache owns the Role, so only a copy may change.
		role = role.DeepCopy()
		role.Rules = wanted
		if err := r.writeRole(ctx, role); err != nil {
			return fmt.Errorf("grant %s to %s: %w", role.Name, account, err)
		}
	}
	return r.bindRole(ctx, role, account)
}

// prepareNew calls the function "prepare", if set, for each object that the Role does not name yet.
func (r *singleRoles) prepareNew(ctx context.Context, role *rbacv1.Role, names []string) error {
	if r.prepare == nil {
		return nil
	}
	already := namedBy(role)
	for _, name := range names {
		if already[name] {
			continue
		}
		if err := r.prepare(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// namedBy returns the names of the objects that the rules of a Role name.
func namedBy(role *rbacv1.Role) map[string]bool {
	already := map[string]bool{}
	for _, rule := range role.Rules {
		for _, name := range rule.ResourceNames {
			already[name] = true
		}
	}
	return already
}

// namesFor returns the sorted names of the objects that a Role is to name, and the names for
// which the Role has no room. Names that the Role has already are preferred, so a later pod
// never takes the place of an earlier pod.
func namesFor(role *rbacv1.Role, objects map[string]client.Object) (names, left []string) {
	names = slices.Sorted(maps.Keys(objects))
	if len(names) <= step.MaxSlotsPerRole {
		return names, nil
	}
	already := namedBy(role)
	first := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !already[name] })
	rest := slices.DeleteFunc(names, func(name string) bool { return already[name] })
	all := append(first, rest...)
	names = slices.Sorted(slices.Values(all[:step.MaxSlotsPerRole]))
	return names, all[step.MaxSlotsPerRole:]
}

// newVariableRoles returns the [singleRoles] that lets accounts use the Variables of their pods. Enroll creates
// a Variable once, before a Role first names the Variable. So a Variable that a person deletes is
// not created again, and the programs that use the Variable get errors. Agents have no right to
// create Variables, because RBAC cannot restrict a creation to a name.
func newVariableRoles(s store, seen *snapshot, now func() time.Time) *singleRoles {
	return &singleRoles{
		store: s, seen: seen, prefix: step.VariablePrefix, rules: VariableRules, objects: seen.used, giving: newStint(now), taking: newStint(now),
		waits: "Variable %s waits: the pods of its service account name more than %d Variables in this namespace",
		prepare: func(ctx context.Context, name string) error {
			return createVariable(ctx, s, seen.namespace, name)
		},
	}
}

// PullSecretsRole is the ClusterRole that lets the webhook read Secrets. Its binding
// in each namespace that opted in has the same name.
const PullSecretsRole = "metaparticle-pull-secrets"

// pullSecrets lets the webhook's account read the Secrets of a namespace that opted in.
// With an empty account, enroll grants nothing, and the namespace's owner may grant that
// right.
func (s store) pullSecrets(ctx context.Context, account types.NamespacedName, seen *snapshot) error {
	switch {
	case account.Name == "":
		return nil
	case seen.optedIn:
		return s.bind(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: seen.namespace, Name: PullSecretsRole},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: PullSecretsRole},
			Subjects:   []rbacv1.Subject{subject(account.Namespace, account.Name)},
		})
	default:
		return s.unbind(ctx, seen.namespace, PullSecretsRole)
	}
}
