// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// newSlot is the age up to which the pods of a slot may wait for enroll. Usually enroll takes less than
// a second.
const newSlot = 30 * time.Second

// slots names the slots for which pods wait although nobody can acquire them: the Lease is missing, or
// no Role names it. The usual cause is a ResourceQuota, or a policy that refuses what enroll writes. If
// no slot lacks anything, the check does not apply.
func (c Cluster) slots(ctx context.Context) (Finding, error) {
	names, err := optedIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var lacking, full []string
	for _, namespace := range names {
		here, err := c.lacking(ctx, namespace)
		if err != nil {
			return Finding{}, err
		}
		if len(here) > 0 {
			lacking = append(lacking, here...)
			full = append(full, c.fullQuotas(ctx, namespace)...)
		}
	}
	const do = "kubectl -n NAMESPACE events --types=Warning shows the API server's refusal (EnrollRefused): raise the quota, or exempt Leases, Roles and RoleBindings from the policy; without such an Event: " + logs
	switch {
	case len(lacking) == 0:
		return Finding{}, nil
	case len(full) > 0:
		return found(Failed, do, "pods wait for slots without a Lease or rights: %s; exhausted quotas: %s", some(lacking), some(full))
	}
	return found(Failed, do, "pods wait for slots without a Lease or rights: %s", some(lacking))
}

// lacking returns the slots of a namespace that pods have claimed for longer than newSlot, and that
// lack a Lease or rights.
func (c Cluster) lacking(ctx context.Context, namespace string) ([]string, error) {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{api.GatedLabel: api.Gated}); err != nil {
		return nil, err
	}
	var claimed []string
	for _, pod := range pods.Items {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if ended || pod.DeletionTimestamp != nil || c.Now.Sub(pod.CreationTimestamp.Time) < newSlot {
			continue
		}
		for slot := range strings.SplitSeq(pod.Annotations[api.SlotsAnnotation], ",") {
			if api.IsSlot(slot) {
				claimed = append(claimed, slot)
			}
		}
	}
	if len(claimed) == 0 {
		return nil, nil
	}
	slices.Sort(claimed)
	usable, err := c.usable(ctx, namespace)
	if err != nil {
		return nil, err
	}
	var lacking []string
	for _, slot := range slices.Compact(claimed) {
		if !usable(slot) {
			lacking = append(lacking, namespace+"/"+slot)
		}
	}
	return lacking, nil
}

// usable returns the test whether a slot has a Lease, and a bound Role that names the Lease. Without
// the right to read Roles, only the Lease counts.
func (c Cluster) usable(ctx context.Context, namespace string) (func(slot string) bool, error) {
	var leases coordinationv1.LeaseList
	if err := c.List(ctx, &leases, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	exists := map[string]bool{}
	for _, lease := range leases.Items {
		exists[lease.Name] = true
	}
	var roles rbacv1.RoleList
	var bindings rbacv1.RoleBindingList
	for _, list := range []client.ObjectList{&roles, &bindings} {
		err := c.List(ctx, list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel})
		if apierrors.IsForbidden(err) {
			return func(slot string) bool { return exists[slot] }, nil
		}
		if err != nil {
			return nil, err
		}
	}
	bound, named := map[string]bool{}, map[string]bool{}
	for _, b := range bindings.Items {
		bound[b.RoleRef.Name] = true
	}
	for _, role := range roles.Items {
		for _, rule := range role.Rules {
			if bound[role.Name] && slices.Contains(rule.Verbs, "update") {
				for _, lease := range rule.ResourceNames {
					named[lease] = true
				}
			}
		}
	}
	return func(slot string) bool { return exists[slot] && named[slot] }, nil
}

// fullQuotas returns the exhausted object counts of a namespace's ResourceQuotas, of the kinds that
// enroll writes. The cause is only a hint, so an error gives none.
func (c Cluster) fullQuotas(ctx context.Context, namespace string) (full []string) {
	var quotas corev1.ResourceQuotaList
	if err := c.List(ctx, &quotas, client.InNamespace(namespace)); err != nil {
		return nil
	}
	for _, q := range quotas.Items {
		for _, count := range []corev1.ResourceName{
			"count/leases.coordination.k8s.io", "count/roles.rbac.authorization.k8s.io", "count/rolebindings.rbac.authorization.k8s.io",
		} {
			hard, limited := q.Status.Hard[count]
			if used := q.Status.Used[count]; limited && used.Cmp(hard) >= 0 {
				full = append(full, namespace+"/"+q.Name+" ("+string(count)+")")
			}
		}
	}
	return full
}
