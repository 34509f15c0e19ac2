// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	pods, err := c.gated(ctx, namespace)
	if err != nil {
		return nil, err
	}
	var claimed []string
	for _, pod := range pods {
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

// gated returns the pods of a namespace that the webhook has marked as gated.
func (c Cluster) gated(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{api.GatedLabel: api.Gated})
	return pods.Items, err
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

// claims names workloads that claim and whose pods run without a gate. Either their namespace has not opted
// in: the API server does not call the webhook there, so the annotation never reaches the pod template, and
// no policy refuses the pods. Or the pod template lacks the claim, though the namespace has opted in: the
// annotation is older, or a controller writes the template. The check reads the metadata of all workloads,
// and so does not see a claim in the template alone, whose pods are refused or gated.
func (c Cluster) claims(ctx context.Context) (Finding, error) {
	out, err := withoutOptIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	in, err := optedIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var without, open, lacking []string
	for _, kind := range api.KindsOf(api.Owner.Lasts) {
		list := new(metav1.PartialObjectMetadataList)
		list.APIVersion, list.Kind = api.BuiltinOwner(kind).APIVersion(), kind+"List"
		if err := c.List(ctx, list, client.Limit(mostWorkloads)); err != nil {
			return Finding{}, err
		}
		claiming := map[string]bool{}
		for _, w := range list.Items {
			switch {
			case !api.Asks(w.Annotations):
			case slices.Contains(out, w.Namespace):
				without, open = append(without, w.Namespace+"/"+w.Name), append(open, w.Namespace)
			default:
				claiming[w.Namespace] = true
			}
		}
		for _, namespace := range in {
			if claiming[namespace] {
				here, err := c.uncarried(ctx, list.APIVersion, kind, namespace)
				if err != nil {
					return Finding{}, err
				}
				lacking = append(lacking, here...)
			}
		}
	}
	switch {
	case len(lacking) > 0:
		namespace, name, _ := strings.Cut(slices.Min(lacking), "/")
		return found(Failed, fmt.Sprintf("kubectl metaparticle explain -n %s %s", namespace, name),
			"workloads claim, and their pods run without a gate, because their pod templates lack the claim: %s", some(lacking))
	case len(without) > 0:
		return found(Failed, optInOf(open)+"; then kubectl rollout restart, or for a CronJob kubectl annotate --overwrite with the same annotation",
			"workloads claim, and run without a gate, because their namespace has not opted in: %s", some(without))
	}
	return ok("no workload claims in vain")
}

// uncarried returns the workloads of a kind in a namespace that claim, and whose pod templates lack the claim.
func (c Cluster) uncarried(ctx context.Context, version, kind, namespace string) (lacking []string, err error) {
	list := new(unstructured.UnstructuredList)
	list.SetAPIVersion(version)
	list.SetKind(kind + "List")
	if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	path := append(api.BuiltinOwner(kind).TemplatePath(), "metadata", "annotations")
	for _, w := range list.Items {
		template, _, err := unstructured.NestedStringMap(w.Object, path...)
		if err != nil {
			return nil, err
		}
		if api.Asks(w.GetAnnotations()) && !api.Asks(template) {
			lacking = append(lacking, namespace+"/"+strings.ToLower(kind)+"/"+w.GetName())
		}
	}
	return lacking, nil
}

// labels warns of namespaces whose label has another value than the one that opts in. Other values that
// say no are deliberate. Without such a namespace the check does not apply.
func (c Cluster) labels(ctx context.Context) (Finding, error) {
	var namespaces corev1.NamespaceList
	if err := c.List(ctx, &namespaces, client.HasLabels{api.InjectionLabel}); err != nil {
		return Finding{}, err
	}
	var wrong, names []string
	for _, n := range namespaces.Items {
		value := n.Labels[api.InjectionLabel]
		if n.DeletionTimestamp == nil && !slices.Contains([]string{api.InjectionEnabled, "disabled", "false"}, value) {
			wrong, names = append(wrong, n.Name+" ("+value+")"), append(names, n.Name)
		}
	}
	if len(wrong) == 0 {
		return Finding{}, nil
	}
	return found(Warning, strings.Replace(optInOf(names), "label", "label --overwrite", 1),
		"only the value %s of the label %s opts a namespace in: %s", api.InjectionEnabled, api.InjectionLabel, some(wrong))
}

// optInOf returns the command by which the namespaces opt in. The command names at most [most] of them.
func optInOf(namespaces []string) string {
	slices.Sort(namespaces)
	namespaces = slices.Compact(namespaces)
	named := strings.Join(namespaces[:min(len(namespaces), most)], " ")
	return strings.Replace(optIn, "NAMESPACE", named, 1)
}

// withoutOptIn returns the namespaces without the label of an opt-in. The function leaves out each
// namespace that is being deleted. A claim has no effect in [home] and in kube-system, even with the
// label, so the function leaves out these two namespaces, too.
func withoutOptIn(ctx context.Context, c Cluster) (names []string, err error) {
	var namespaces corev1.NamespaceList
	if err := c.List(ctx, &namespaces); err != nil {
		return nil, err
	}
	for _, n := range namespaces.Items {
		if n.DeletionTimestamp == nil && n.Labels[api.InjectionLabel] != api.InjectionEnabled &&
			n.Name != home && n.Name != metav1.NamespaceSystem {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// mostWorkloads bounds the workloads of one kind that a check reads.
const mostWorkloads = 5000
