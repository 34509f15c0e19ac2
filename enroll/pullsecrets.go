// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PullSecretsRole is the ClusterRole that lets the webhook read Secrets, and
// the name of its binding in each namespace that opted in.
const PullSecretsRole = "metaparticle-pull-secrets"

// pullSecrets lets the webhook read Secrets of a namespace that opted in. An
// empty service account leaves that to the namespace's owner.
func (r *Reconciler) pullSecrets(ctx context.Context, namespace string, optedIn bool) error {
	switch {
	case r.PullSecrets.Name == "":
		return nil
	case optedIn:
		return r.bind(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: PullSecretsRole},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: PullSecretsRole},
			Subjects: []rbacv1.Subject{{
				Kind: rbacv1.ServiceAccountKind, Namespace: r.PullSecrets.Namespace, Name: r.PullSecrets.Name,
			}},
		})
	default:
		return r.unbind(ctx, namespace, PullSecretsRole)
	}
}
