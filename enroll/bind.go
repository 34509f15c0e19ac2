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

// bindRole binds a Role to a service account.
func (s store) bindRole(ctx context.Context, role *rbacv1.Role, account string) error {
	return s.bind(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: role.Namespace, Name: role.Name},
		RoleRef:    roleRef(role.Name),
		Subjects:   []rbacv1.Subject{subject(role.Namespace, account)},
	})
}

// bind creates or corrects a RoleBinding. The field roleRef is immutable. So bind deletes a
// RoleBinding with a wrong roleRef, and the next attempt creates the RoleBinding again.
func (s store) bind(ctx context.Context, wanted *rbacv1.RoleBinding) error {
	wanted.Labels = map[string]string{api.ManagedLabel: managed}
	var there rbacv1.RoleBinding
	err := s.client.Get(ctx, client.ObjectKeyFromObject(wanted), &there)
	switch {
	case apierrors.IsNotFound(err):
		err = s.client.Create(ctx, wanted)
		if apierrors.IsAlreadyExists(err) {
			// The RoleBinding already exists. If enroll made the RoleBinding, the cache was stale,
			// and a later attempt corrects the RoleBinding. A RoleBinding without the label was not
			// made by enroll.
			err = s.reader.Get(ctx, client.ObjectKeyFromObject(wanted), &there)
			if err == nil && there.Labels[api.ManagedLabel] == "" {
				err = ErrForeign
			}
		}
	case err != nil:
	case there.RoleRef != wanted.RoleRef && there.DeletionTimestamp != nil:
		err = errFinalizers
	case there.RoleRef != wanted.RoleRef:
		err = s.client.Delete(ctx, &there, unchanged(&there))
		if err == nil {
			err = errAgain
		}
	case !slices.Equal(there.Subjects, wanted.Subjects):
		there.Subjects = wanted.Subjects
		err = s.client.Update(ctx, &there)
	}
	if err != nil {
		return fmt.Errorf("bind role %s: %w", wanted.RoleRef.Name, err)
	}
	return nil
}

// unbind deletes a RoleBinding, if the RoleBinding exists and enroll made the RoleBinding.
func (s store) unbind(ctx context.Context, namespace, name string) error {
	binding := rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	err := s.client.Get(ctx, client.ObjectKeyFromObject(&binding), &binding)
	if err == nil && binding.Labels[api.ManagedLabel] == managed {
		err = s.client.Delete(ctx, &binding, unchanged(&binding))
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete role binding %s: %w", name, err)
	}
	return nil
}

// unbindOrphans deletes the RoleBindings whose Role is gone. Such a RoleBinding is left over if the
// cache did not yet contain the RoleBinding when enroll deleted the Role. Such a RoleBinding is
// also left over if a person deleted the Role.
//
// A user can make thousands of such RoleBindings, and can keep them by finalizers. So unbindOrphans
// ends with its stint, and deletes each RoleBinding only once.
func (s store) unbindOrphans(ctx context.Context, known *agentRoles, bindings []rbacv1.RoleBinding, until *stint) error {
	roles := make(map[string]bool, len(known.All)+len(known.singles))
	for _, r := range known.All {
		roles[r.Name] = true
	}
	for name := range known.singles {
		roles[name] = true
	}
	var orphans []*rbacv1.RoleBinding
	for i := range bindings {
		b := &bindings[i]
		if b.Labels[api.ManagedLabel] == managed && b.RoleRef.Kind == roleKind && !roles[b.RoleRef.Name] && b.DeletionTimestamp == nil {
			orphans = append(orphans, b)
		}
	}
	var errs []error
	deleted := false
	for _, b := range anyFirst(orphans) {
		if until.over() {
			break
		}
		// Enroll creates a Role before its RoleBinding, but the cache may receive the RoleBinding
		// first. So only the API server's answer shows that the Role is gone.
		err := s.reader.Get(ctx, client.ObjectKey{Namespace: b.Namespace, Name: b.RoleRef.Name}, &rbacv1.Role{})
		if apierrors.IsNotFound(err) {
			err = client.IgnoreNotFound(s.client.Delete(ctx, b, unchanged(b)))
			deleted = deleted || err == nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("delete role binding %s without its role: %w", b.Name, err))
		}
	}
	// The Roles of thousands of RoleBindings can exist without the label of enroll. Then the next
	// reconciliation would find nothing to delete, either.
	until.postponed = until.postponed && deleted
	return errors.Join(errs...)
}

// deleteRole deletes a Role's RoleBinding, and then the Role. A crash between the two deletions
// leaves a Role that gives no right.
func (s store) deleteRole(ctx context.Context, role *rbacv1.Role) error {
	if err := s.unbind(ctx, role.Namespace, role.Name); err != nil {
		return err
	}
	err := s.client.Delete(ctx, role, unchanged(role))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete role %s: %w", role.Name, err)
	}
	return nil
}
