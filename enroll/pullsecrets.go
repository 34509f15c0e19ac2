// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

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
