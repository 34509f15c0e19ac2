// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// thief is a stranger with a service account token of the webhook.
type thief struct {
	*space.Space
	client kubernetes.Interface
	// The fields slot and role are the names of a Lease and a Role that enroll made. The
	// binding of the Role has the same name as the Role.
	slot, role string
}

// stealAccount returns a thief with a new token of the webhook's account.
func stealAccount(s *space.Space) thief {
	s.Helper()
	return thief{Space: s, client: asAccount(s, webhook.Namespace, webhook.Name, nil)}
}

// labelled returns the metadata of an object. If the argument "ours" is true, the metadata
// has Metaparticle's label, as enroll writes it.
func labelled(name string, ours bool) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{Name: name}
	if ours {
		meta.Labels = map[string]string{api.ManagedLabel: "true"}
	}
	return meta
}

// agentsRole returns a Role for agents as enroll makes it, with Metaparticle's label or without
// the label.
func agentsRole(name string, ours bool) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: labelled(name, ours), Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{coordinationv1.GroupName}, Resources: []string{"leases"}, ResourceNames: []string{"lock.x", "next.lock.x"}, Verbs: []string{"get", "watch", "update"}},
		{APIGroups: []string{""}, Resources: []string{"pods/status"}, Verbs: []string{"patch"}},
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}},
		{APIGroups: []string{"metaparticle.io"}, Resources: []string{"agents"}, Verbs: []string{"be"}},
	}}
}

// binding returns a RoleBinding as enroll makes it.
func (th thief) binding(name string, ours bool) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: labelled(name, ours), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: th.Namespace, Name: "default"}},
	}
}

// unbound is the name of a Role without a RoleBinding. Without the label, enroll ignores the Role.
const unbound = "metaparticle:unbound"

// recorded is the name of a Lease with a done key.
const recorded = "once.recorded"

// A stranger with the webhook's service account token can do the work of enroll and
// nothing else. The stranger can change no object of a node, of the control plane or of
// another controller.
func TestWebhookAccountHasOnlyTheRightsOfEnroll(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	ctx := t.Context()
	th := stealAccount(s)
	record := &coordinationv1.Lease{ObjectMeta: labelled(recorded, true)}
	record.Annotations = map[string]string{api.DoneAnnotation: "7"}
	_, err := s.Client.CoordinationV1().Leases(s.Namespace).Create(ctx, record, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = s.Client.RbacV1().Roles(s.Namespace).Create(ctx, agentsRole(unbound, false), metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = s.Client.CoreV1().Pods(s.Namespace).Create(ctx, app.Bare(s, "victim", nil), metav1.CreateOptions{})
	require.NoError(t, err)
	// enroll makes a Lease, a Role and a binding for the pod of this Deployment.
	a := app.Lasting("worked")
	a.Replicas = 1
	app.Deploy(s, a)
	roles, err := s.Client.RbacV1().Roles(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: api.ManagedLabel})
	require.NoError(t, err)
	require.NotEmpty(t, roles.Items)
	th.slot, th.role = lease.OfDeployment(a.Name), roles.Items[0].Name
	for what, attempt := range th.attempts() {
		t.Run(what, func(t *testing.T) {
			err := attempt(t.Context())
			require.Error(t, err)
			assert.True(t, apierrors.IsForbidden(err), "%v", err)
			// The API server names only one of the policies that refuse a request.
			assert.Regexp(t, "NotYours: |NotYourself: |WorkDone: ", err.Error())
		})
	}
	for what, work := range th.work() {
		t.Run(what, func(t *testing.T) { assert.NoError(t, work(t.Context())) })
	}
}

// attempts lists requests that the policies must refuse, although the account has the right to make them.
// Package test/policies evaluates many more requests by the same policies.
func (th thief) attempts() map[string]func(context.Context) error {
	more := agentsRole("metaparticle:x", true)
	more.Rules = append(more.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}})
	return map[string]func(context.Context) error{
		// An earlier version of enroll deleted a Lease with done keys when the last pod that
		// claimed the Lease was gone.
		"a Lease with done keys, deleted": func(context.Context) error { return th.deleteLease(th.Namespace, recorded) },
		"a pod's status":                  th.patchStatus(th.Namespace, "victim"),
		"a node's heartbeat":              th.node(func(name string) error { return th.updateLease(corev1.NamespaceNodeLease, name) }),
		"a Lease of the control plane": func(ctx context.Context) error {
			return th.createLease(ctx, metav1.NamespaceSystem, "kube-scheduler")
		},
		// A thief could make the Lease of another controller's election before that controller
		// does. Such a Lease may be in any namespace.
		"another's election, made first": func(ctx context.Context) error {
			return th.createLease(ctx, metav1.NamespaceDefault, "cert-manager-controller")
		},
		"a Role with more verbs": func(ctx context.Context) error { return th.createRole(ctx, th.Namespace, more) },
		"a Role in kube-system": func(ctx context.Context) error {
			return th.createRole(ctx, metav1.NamespaceSystem, agentsRole("metaparticle:x", true))
		},
		"a binding to another namespace's account": func(ctx context.Context) error {
			binding := th.binding(unbound, true)
			binding.Subjects[0].Namespace = metav1.NamespaceDefault
			_, err := th.client.RbacV1().RoleBindings(th.Namespace).Create(ctx, binding, metav1.CreateOptions{DryRun: webhook.DryRun})
			return err
		},
	}
}

// work lists the requests of enroll, which the policies must admit.
func (th thief) work() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"makes a Lease": func(ctx context.Context) error { return th.createLease(ctx, th.Namespace, "lock.x") },
		"makes a next Lease": func(ctx context.Context) error {
			return th.createLease(ctx, th.Namespace, api.NextLease("lock.x"))
		},
		"makes a Lease of a singleton": func(ctx context.Context) error {
			return th.createLease(ctx, th.Namespace, api.SingletonLease(api.Workload{Group: "example.com", Kind: "Rollout", Name: "a.b"}, "main"))
		},
		"makes a Lease anew where the namespace opted out": func(ctx context.Context) error {
			return th.createLease(ctx, metav1.NamespaceDefault, "lock.x")
		},
		"makes a Role without rules": func(ctx context.Context) error {
			role := agentsRole("metaparticle:x", true)
			role.Rules = nil
			return th.createRole(ctx, th.Namespace, role)
		},
		"frees a Lease":  func(context.Context) error { return th.updateLease(th.Namespace, th.slot) },
		"sweeps a Lease": func(context.Context) error { return th.deleteLease(th.Namespace, th.slot) },
		"makes a Role": func(ctx context.Context) error {
			return th.createRole(ctx, th.Namespace, agentsRole("metaparticle:x", true))
		},
		"sweeps a Role": func(ctx context.Context) error {
			return th.client.RbacV1().Roles(th.Namespace).Delete(ctx, th.role, metav1.DeleteOptions{DryRun: webhook.DryRun})
		},
		"binds a Role": th.bind,
		"is elected":   func(context.Context) error { return th.updateLease(webhook.Namespace, "metaparticle-enroll") },
		"unbinds a Role": func(ctx context.Context) error {
			return th.client.RbacV1().RoleBindings(th.Namespace).Delete(ctx, th.role, metav1.DeleteOptions{DryRun: webhook.DryRun})
		},
	}
}

// patchStatus returns a request that changes a pod's status by dry run.
func (th thief) patchStatus(namespace, pod string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := th.client.CoreV1().Pods(namespace).Patch(ctx, pod, types.StrategicMergePatchType,
			[]byte(`{"status":{"podIP":"192.0.2.1"}}`), metav1.PatchOptions{DryRun: webhook.DryRun}, "status")
		return err
	}
}

// node returns a request about the heartbeat Lease of a node.
func (th thief) node(do func(name string) error) func(context.Context) error {
	return func(ctx context.Context) error {
		leases, err := th.Space.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{})
		require.NoError(th, err)
		require.NotEmpty(th, leases.Items)
		return do(leases.Items[0].Name)
	}
}

// updateLease takes a Lease over by dry run, and gives the Lease Metaparticle's label. Only the
// election Lease gets no label, because enroll itself gives that Lease no label.
func (th thief) updateLease(namespace, name string) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease, err := th.Space.Client.CoordinationV1().Leases(namespace).Get(th.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Labels == nil {
			lease.Labels = map[string]string{}
		}
		if name != "metaparticle-enroll" {
			lease.Labels[api.ManagedLabel] = "true"
		}
		lease.Spec.HolderIdentity = new("thief")
		_, err = th.client.CoordinationV1().Leases(namespace).Update(th.Context(), lease, metav1.UpdateOptions{DryRun: webhook.DryRun})
		return err
	})
}

// deleteLease deletes a Lease by dry run.
func (th thief) deleteLease(namespace, name string) error {
	return th.client.CoordinationV1().Leases(namespace).Delete(th.Context(), name, metav1.DeleteOptions{DryRun: webhook.DryRun})
}

// createLease creates a Lease with Metaparticle's label by dry run.
func (th thief) createLease(ctx context.Context, namespace, name string) error {
	_, err := th.client.CoordinationV1().Leases(namespace).Create(ctx, &coordinationv1.Lease{ObjectMeta: labelled(name, true)},
		metav1.CreateOptions{DryRun: webhook.DryRun})
	return err
}

// createRole creates a Role by dry run.
func (th thief) createRole(ctx context.Context, namespace string, role *rbacv1.Role) error {
	_, err := th.client.RbacV1().Roles(namespace).Create(ctx, role, metav1.CreateOptions{DryRun: webhook.DryRun})
	return err
}

// bind creates, by dry run, the binding of a Role that has none.
func (th thief) bind(ctx context.Context) error {
	_, err := th.client.RbacV1().RoleBindings(th.Namespace).Create(ctx, th.binding(unbound, true), metav1.CreateOptions{DryRun: webhook.DryRun})
	return err
}
