// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// LeasesAnnotation stands on a Role and remembers each Lease that the Role
// names, even if it is gone.
const LeasesAnnotation = api.Prefix + "leases"

// memory is what a Role remembers of one Lease.
type memory struct {
	// Seconds is the longest duration ever claimed under the name.
	Seconds int32 `json:"seconds"`
	// UID is the Lease that the name was last seen on. To change it is what
	// makes a sweeper's compare-and-swap fail who still means its predecessor.
	UID types.UID `json:"uid"`
}

// RoleName is the name of the Role and of the RoleBinding of a service account.
// No two accounts have one of the same name.
func RoleName(account string) string { return api.ShortName("metaparticle-" + account) }

// roles are the Roles of a namespace that are ours.
type roles []rbacv1.Role

// roles lists them; consistently, if from is no cache.
func (r *Reconciler) roles(ctx context.Context, from client.Reader, namespace string) (roles, error) {
	var list rbacv1.RoleList
	err := from.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel})
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	return list.Items, nil
}

// named: a Role remembers the Lease.
func (rs roles) named(lease string) bool {
	return slices.ContainsFunc(rs, func(role rbacv1.Role) bool {
		_, ok := remembered(&role)[lease]
		return ok
	})
}

// longest is the longest duration that any Role remembers for the Lease.
func (rs roles) longest(lease string) time.Duration {
	var seconds int32
	for i := range rs {
		seconds = max(seconds, remembered(&rs[i])[lease].Seconds)
	}
	return time.Duration(seconds) * time.Second
}

// names are all Leases that any Role remembers.
func (rs roles) names() map[string]bool {
	names := map[string]bool{}
	for i := range rs {
		for name := range remembered(&rs[i]) {
			names[name] = true
		}
	}
	return names
}

// grants: the Role of the account names this very Lease, remembers at least
// the duration, and is as we would write it.
func (rs roles) grants(account string, lease *coordinationv1.Lease, duration time.Duration) bool {
	i := slices.IndexFunc(rs, func(role rbacv1.Role) bool { return role.Name == RoleName(account) })
	if i < 0 {
		return false
	}
	memories := remembered(&rs[i])
	m, ok := memories[lease.Name]
	return ok && m.UID == lease.UID && m.Seconds >= seconds(duration) &&
		reflect.DeepEqual(rs[i].Rules, rules(memories))
}

// remembered reads a Role's memory. What nobody can read was not written by
// us; the names in its rules are then all there is.
func remembered(role *rbacv1.Role) map[string]memory {
	memories := map[string]memory{}
	if json.Unmarshal([]byte(role.Annotations[LeasesAnnotation]), &memories) == nil {
		return memories
	}
	memories = map[string]memory{}
	for _, rule := range role.Rules {
		if slices.Contains(rule.Resources, "leases") {
			for _, name := range rule.ResourceNames {
				memories[name] = memory{Seconds: seconds(api.MaxLeaseDuration)}
			}
		}
	}
	return memories
}

func remember(role *rbacv1.Role, memories map[string]memory) error {
	text, err := json.Marshal(memories)
	if err != nil {
		return fmt.Errorf("write memory of role %s: %w", role.Name, err)
	}
	if role.Annotations == nil {
		role.Annotations = map[string]string{}
	}
	role.Annotations[LeasesAnnotation] = string(text)
	role.Rules = rules(memories)
	return nil
}

// rules give what the memory names, as far as it can be a slot: who may only
// annotate a Role must not choose which Leases it names.
func rules(memories map[string]memory) []rbacv1.PolicyRule {
	return AgentRules(slices.DeleteFunc(slices.Sorted(maps.Keys(memories)), func(name string) bool {
		return !api.IsSlot(name)
	})...)
}

// AgentRules are an agent's rights. The policies of manifests/policies bind
// them to the pod that uses them, and know by the last one who has them: it is
// a right to nothing, which nobody else is given.
func AgentRules(leases ...string) []rbacv1.PolicyRule {
	marker := rbacv1.PolicyRule{
		APIGroups: []string{strings.TrimSuffix(api.Prefix, "/")},
		Resources: []string{"agents"},
		Verbs:     []string{"be"},
	}
	if len(leases) == 0 {
		// A rule that names no Lease would be about all of them.
		return []rbacv1.PolicyRule{marker}
	}
	return []rbacv1.PolicyRule{{
		APIGroups:     []string{coordinationv1.GroupName},
		Resources:     []string{"leases"},
		ResourceNames: leases,
		Verbs:         []string{"get", "watch", "update"},
	}, {
		APIGroups: []string{""},
		Resources: []string{"pods/status"},
		Verbs:     []string{"patch"},
	}, {
		APIGroups: []string{""},
		Resources: []string{"events"},
		Verbs:     []string{"create"},
	}, marker}
}

// grant lets the pods of an account compete for a Lease that exists.
func (r *Reconciler) grant(ctx context.Context, account string, lease *coordinationv1.Lease, duration time.Duration) error {
	role := rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
		Namespace: lease.Namespace,
		Name:      RoleName(account),
		Labels:    map[string]string{api.ManagedLabel: managed},
	}}
	err := r.Reader.Get(ctx, client.ObjectKeyFromObject(&role), &role)
	missing := apierrors.IsNotFound(err)
	switch {
	case err != nil && !missing:
		return fmt.Errorf("read role %s: %w", role.Name, err)
	case role.Labels[api.ManagedLabel] == "":
		return fmt.Errorf("role %s: %w", role.Name, ErrForeign)
	}
	memories := remembered(&role)
	m := memories[lease.Name]
	memories[lease.Name] = memory{Seconds: max(m.Seconds, seconds(duration)), UID: lease.UID}
	before := role.DeepCopy()
	if err := remember(&role, memories); err != nil {
		return err
	}
	switch {
	case missing:
		err = r.Client.Create(ctx, &role)
	case reflect.DeepEqual(before.Rules, role.Rules) && maps.Equal(before.Annotations, role.Annotations):
		err = nil
	default:
		err = r.Client.Update(ctx, &role)
	}
	if err != nil {
		return fmt.Errorf("grant lease %s to %s: %w", lease.Name, account, err)
	}
	return r.bind(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: role.Namespace, Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: role.Namespace, Name: account}},
	})
}

// bind makes a binding be as wanted. What a binding refers to cannot be
// changed; a wrong one is deleted, and made anew by the next attempt.
func (r *Reconciler) bind(ctx context.Context, wanted *rbacv1.RoleBinding) error {
	wanted.Labels = map[string]string{api.ManagedLabel: managed}
	var there rbacv1.RoleBinding
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(wanted), &there)
	switch {
	case apierrors.IsNotFound(err):
		err = r.Client.Create(ctx, wanted)
		if apierrors.IsAlreadyExists(err) {
			// The cache was behind, or somebody else's is in the way: the
			// next look tells.
			err = r.Reader.Get(ctx, client.ObjectKeyFromObject(wanted), &there)
			if err == nil && there.Labels[api.ManagedLabel] == "" {
				err = ErrForeign
			}
		}
	case err != nil:
	case there.RoleRef != wanted.RoleRef:
		err = r.Client.Delete(ctx, &there, unchanged(&there))
		if err == nil {
			err = errAgain
		}
	case !slices.Equal(there.Subjects, wanted.Subjects):
		there.Subjects = wanted.Subjects
		err = r.Client.Update(ctx, &there)
	}
	if err != nil {
		return fmt.Errorf("bind role %s: %w", wanted.RoleRef.Name, err)
	}
	return nil
}

// seconds rounds up: a Lease says whole ones.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }
