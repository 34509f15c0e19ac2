// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
)

// renewals warns of webhooks that the API server calls for each renewal of a slot. A renewal then waits
// for the webhook's answer. If such a webhook is down and its failurePolicy is Fail, no pod renews its
// hold, so all applications stop. If such a webhook adds a label to a Lease, a policy refuses the renewal.
func (c Cluster) renewals(ctx context.Context) (Finding, error) {
	namespaces, err := holding(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var mutating admissionv1.MutatingWebhookConfigurationList
	if err := c.List(ctx, &mutating); err != nil {
		return Finding{}, err
	}
	var validating admissionv1.ValidatingWebhookConfigurationList
	if err := c.List(ctx, &validating); err != nil {
		return Finding{}, err
	}
	var calls []call
	for _, configuration := range mutating.Items {
		for _, w := range configuration.Webhooks {
			calls = append(calls, call{w.Name, w.Rules, w.NamespaceSelector, w.ObjectSelector, w.MatchConditions, w.FailurePolicy})
		}
	}
	for _, configuration := range validating.Items {
		for _, w := range configuration.Webhooks {
			calls = append(calls, call{w.Name, w.Rules, w.NamespaceSelector, w.ObjectSelector, w.MatchConditions, w.FailurePolicy})
		}
	}
	var strict, lenient []string
	for _, w := range calls {
		switch {
		case !w.ofRenewals(namespaces):
		case ptr.Deref(w.failure, admissionv1.Fail) == admissionv1.Fail:
			strict = append(strict, w.name)
		default:
			lenient = append(lenient, w.name)
		}
	}
	const do = "exempt the resource leases of coordination.k8s.io from these webhooks, by their rules or matchConditions"
	switch {
	case len(strict) > 0:
		return found(Warning, do, "while one of these webhooks is down, no pod renews its hold, so all applications stop: %s", some(strict))
	case len(lenient) > 0:
		return found(Warning, do, "each renewal of a hold waits for these webhooks: %s", some(lenient))
	}
	return ok("no webhook is called for renewals")
}

// holding returns the namespaces whose pods can hold slots: those that have opted in. Before an
// installation no namespace has opted in. Then holding returns each namespace that may opt in, with the
// label of the opt-in. No pod of [home] or kube-system has a gate.
func holding(ctx context.Context, c Cluster) (opted []corev1.Namespace, err error) {
	var all corev1.NamespaceList
	if err := c.List(ctx, &all); err != nil {
		return nil, err
	}
	var others []corev1.Namespace
	for _, n := range all.Items {
		switch {
		case n.DeletionTimestamp != nil || n.Name == home || n.Name == metav1.NamespaceSystem:
		case n.Labels[api.InjectionLabel] == api.InjectionEnabled:
			opted = append(opted, n)
		default:
			n.Labels = labels.Merge(n.Labels, labels.Set{api.InjectionLabel: api.InjectionEnabled})
			others = append(others, n)
		}
	}
	if len(opted) == 0 {
		return others, nil
	}
	return opted, nil
}

// call says when the API server calls one webhook.
type call struct {
	name               string
	rules              []admissionv1.RuleWithOperations
	namespaces, object *metav1.LabelSelector
	conditions         []admissionv1.MatchCondition
	failure            *admissionv1.FailurePolicyType
}

// ofRenewals reports whether the API server calls the webhook for renewals in one of the namespaces. The
// function cannot evaluate a match condition. So a condition that names Leases counts as an exemption.
func (w call) ofRenewals(namespaces []corev1.Namespace) bool {
	exempt := func(m admissionv1.MatchCondition) bool {
		return strings.Contains(m.Expression, "leases") || strings.Contains(m.Expression, coordinationv1.GroupName)
	}
	return slices.ContainsFunc(w.rules, updatesLeases) && !slices.ContainsFunc(w.conditions, exempt) &&
		selects(w.object, map[string]string{api.ManagedLabel: "true"}) &&
		slices.ContainsFunc(namespaces, func(n corev1.Namespace) bool {
			// The API server gives each namespace the label of its name.
			return selects(w.namespaces, labels.Merge(n.Labels, labels.Set{corev1.LabelMetadataName: n.Name}))
		})
}

// updatesLeases reports whether the rule matches an update of a Lease. By default, the API server also
// matches equivalent requests of other versions. So the function ignores the versions of the rule.
func updatesLeases(r admissionv1.RuleWithOperations) bool {
	return hasOne(r.Operations, admissionv1.Update, admissionv1.OperationAll) &&
		hasOne(r.APIGroups, coordinationv1.GroupName, "*") && hasOne(r.Resources, "leases", "*", "*/*") &&
		ptr.Deref(r.Scope, admissionv1.AllScopes) != admissionv1.ClusterScope
}

// hasOne reports whether the list has one of the values.
func hasOne[T comparable](list []T, values ...T) bool {
	return slices.ContainsFunc(list, func(v T) bool { return slices.Contains(values, v) })
}

// selects reports whether the selector matches the labels. An absent selector matches everything, and a
// broken one nothing.
func selects(selector *metav1.LabelSelector, of labels.Set) bool {
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(of)
}
