// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

const roleKind = "Role"

// bindings are those of a namespace that are ours, as the cache knows them.
func (r *Reconciler) bindings(ctx context.Context, namespace string) ([]rbacv1.RoleBinding, error) {
	var list rbacv1.RoleBindingList
	err := r.Client.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list role bindings: %w", err)
	}
	return list.Items, nil
}

// markBound notes which Roles are bound as we would bind them.
func (ls *ledgers) markBound(bindings []rbacv1.RoleBinding) {
	byName := make(map[string]*rbacv1.RoleBinding, len(bindings))
	for i := range bindings {
		byName[bindings[i].Name] = &bindings[i]
	}
	for _, l := range ls.all {
		b := byName[l.role.Name]
		l.bound = b != nil && l.key != "" && b.RoleRef == roleRef(l.role.Name) && len(b.Subjects) == 1 &&
			b.Subjects[0] == subject(l.role.Namespace, b.Subjects[0].Name) && roleKey(b.Subjects[0].Name) == l.key
	}
}

func roleRef(role string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: roleKind, Name: role}
}

func subject(namespace, account string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}
}

// bindRole binds a Role of ours to its account.
func (r *Reconciler) bindRole(ctx context.Context, l *ledger, account string) error {
	return r.bind(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.role.Namespace, Name: l.role.Name},
		RoleRef:    roleRef(l.role.Name),
		Subjects:   []rbacv1.Subject{subject(l.role.Namespace, account)},
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

// unbind deletes a binding of ours, if it is there.
func (r *Reconciler) unbind(ctx context.Context, namespace, name string) error {
	binding := rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(&binding), &binding)
	if err == nil && binding.Labels[api.ManagedLabel] == managed {
		err = r.Client.Delete(ctx, &binding, unchanged(&binding))
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete role binding %s: %w", name, err)
	}
	return nil
}

// unbindOrphans deletes the bindings whose Role is gone: a process ended between
// the two deletions, or somebody else deleted the Role.
func (r *Reconciler) unbindOrphans(ctx context.Context, l *look) error {
	roles := make(map[string]bool, len(l.ledgers.all))
	for _, known := range l.ledgers.all {
		roles[known.role.Name] = true
	}
	var errs []error
	for i := range l.bindings {
		b := &l.bindings[i]
		if b.Labels[api.ManagedLabel] != managed || b.RoleRef.Kind != roleKind || roles[b.RoleRef.Name] {
			continue
		}
		// A Role is made before its binding, but the cache may know the second alone.
		err := r.Reader.Get(ctx, client.ObjectKey{Namespace: b.Namespace, Name: b.RoleRef.Name}, &rbacv1.Role{})
		if apierrors.IsNotFound(err) {
			err = client.IgnoreNotFound(r.Client.Delete(ctx, b, unchanged(b)))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("delete role binding %s without its role: %w", b.Name, err))
		}
	}
	return errors.Join(errs...)
}
