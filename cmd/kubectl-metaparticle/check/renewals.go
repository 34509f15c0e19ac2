// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// pauses names the paused slots, because a forgotten pause blocks a slot until a person ends it.
// The check leaves out namespaces that are being deleted. If no slot is paused, the check does not
// apply.
func (c Cluster) pauses(ctx context.Context) (Finding, error) {
	var leases coordinationv1.LeaseList
	if err := c.List(ctx, &leases, client.HasLabels{api.ManagedLabel}); err != nil {
		return Finding{}, err
	}
	var namespaces corev1.NamespaceList
	if err := c.List(ctx, &namespaces); err != nil && !apierrors.IsForbidden(err) {
		return Finding{}, err
	}
	leaving := map[string]bool{}
	for _, n := range namespaces.Items {
		leaving[n.Name] = n.DeletionTimestamp != nil
	}
	var paused []string
	do, end := "", ""
	slots, recovering := 0, 0
	for _, l := range leases.Items {
		if leaving[l.Namespace] || !api.IsSlot(l.Name) {
			continue
		}
		slots++
		pause := api.PauseOf(l.Annotations)
		if pause == "" {
			continue
		}
		if do == "" {
			do = c.resume(l)
		}
		if pause == api.PauseRecover {
			recovering++
			end = cmp.Or(end, c.resume(l))
		}
		paused = append(paused, fmt.Sprintf("%s/%s (%s)", l.Namespace, l.Name, shownPause(pause)))
	}
	blocked := fmt.Sprintf("no pod can acquire %d paused slots", len(paused))
	if len(paused) == 1 {
		blocked = "no pod can acquire 1 paused slot"
	}
	switch {
	case len(paused) == 0:
		return Finding{}, nil
	case recovering > 0:
		// Any user who may patch a Lease can write this value. A recovery makes holders of all namespaces
		// yield, so a person must not begin one for the pause of a single user.
		return found(Warning, "if somebody has begun kubectl metaparticle recover and it does not run any more, repeat it with its --floor ("+api.Repository+"docs/operate/recover.md); "+
			"if nobody has, a user wrote the pause: "+end,
			"%s: %s; %d of all %d slots have the value recover, which a recovery gives to all slots", blocked, some(paused), recovering, slots)
	}
	return found(Warning, do, "%s: %s", blocked, some(paused))
}

// shownPause returns the value of a pause. A person may have written an unknown value, which counts
// as [api.PauseHold].
func shownPause(pause api.Pause) string {
	if !pause.Known() {
		return "an unknown value, which counts as " + string(api.PauseHold)
	}
	return string(pause)
}

// resume returns the command that ends the pause of a Lease.
func (c Cluster) resume(l coordinationv1.Lease) string {
	if c.Target != nil {
		if target := c.Target(l.Name); target != "" {
			return fmt.Sprintf("kubectl metaparticle resume -n %s %s", l.Namespace, target)
		}
	}
	return fmt.Sprintf("kubectl -n %s annotate lease %s %s-", l.Namespace, l.Name, api.PausedAnnotation)
}

// tokens judges the tokens in the Leases. A token is the resourceVersion of an earlier write. So a
// token above the current resourceVersion comes from another cluster, or from the time before etcd
// was restored from a backup.
func (c Cluster) tokens(ctx context.Context) (Finding, error) {
	var list coordinationv1.LeaseList
	if err := c.List(ctx, &list, client.HasLabels{api.ManagedLabel}); err != nil {
		return Finding{}, err
	}
	revision, err := strconv.ParseUint(list.ResourceVersion, 10, 64)
	if err != nil {
		return Finding{}, fmt.Errorf("the API server's revision is no number: %w", err)
	}
	var foreign []coordinationv1.Lease
	greatest, at := uint64(0), 0
	for _, l := range list.Items {
		token, err := strconv.ParseUint(l.Annotations[api.TokenAnnotation], 10, 64)
		if err != nil || token <= revision {
			continue
		}
		if token > greatest {
			greatest, at = token, len(foreign)
		}
		foreign = append(foreign, l)
	}
	if len(foreign) > 0 {
		l := foreign[at]
		return found(Failed, fmt.Sprintf("read "+api.Repository+"docs/operate/recover.md. If storage can have seen this token: kubectl metaparticle recover --floor %d. "+
			"If not, a pod wrote any number: kubectl -n %s annotate lease %s %s-", greatest, l.Namespace, l.Name, api.TokenAnnotation),
			"the Lease %s/%s has the token %d above the API server's revision %d (such Leases: %d): "+
				"the Leases come from another time or cluster, and new tokens are smaller, or a pod of the namespace %s wrote this number",
			l.Namespace, l.Name, greatest, revision, len(foreign), l.Namespace)
	}
	return ok("no token of %s is above the API server's revision", count(len(list.Items), "Lease", "Leases"))
}
