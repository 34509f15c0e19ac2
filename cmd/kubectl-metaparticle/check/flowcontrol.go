// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/manifests"
)

// flowControl returns the priority level of this plugin's version, and the FlowSchemas that lead to it.
func flowControl() (level flowcontrolv1.PriorityLevelConfiguration, schemas []flowcontrolv1.FlowSchema, err error) {
	documents := strings.Split(string(manifests.FlowControl), "\n---\n")
	if err := yaml.UnmarshalStrict([]byte(documents[0]), &level); err != nil {
		return level, nil, err
	}
	for _, document := range documents[1:] {
		var s flowcontrolv1.FlowSchema
		if err := yaml.UnmarshalStrict([]byte(document), &s); err != nil {
			return level, nil, err
		}
		schemas = append(schemas, s)
	}
	return level, schemas, nil
}

// priority warns if renewals have no priority level of their own. In any other level a renewal waits
// behind requests of other programs, for seconds if these flood the API server.
func (c Cluster) priority(ctx context.Context) (Finding, error) {
	if !c.Fair {
		return unprotected("remove --enable-priority-and-fairness=false from the arguments of the API server",
			"its answers name no FlowSchema, so API Priority and Fairness is off")
	}
	wanted, schemas, err := flowControl()
	if err != nil {
		return Finding{}, err
	}
	var levels flowcontrolv1.PriorityLevelConfigurationList
	var all flowcontrolv1.FlowSchemaList
	if err := errors.Join(c.List(ctx, &levels), c.List(ctx, &all)); err != nil {
		return Finding{}, err
	}
	i := slices.IndexFunc(levels.Items, func(l flowcontrolv1.PriorityLevelConfiguration) bool { return l.Name == wanted.Name })
	if i < 0 {
		return unprotected(again+"; with Helm, add --set flowControl.enabled=true", "prioritylevelconfiguration/%s is missing", wanted.Name)
	}
	if fewer(levels.Items[i].Spec, wanted.Spec) {
		return unprotected(again, "prioritylevelconfiguration/%s has fewer seats than in this plugin's version, or no queues", wanted.Name)
	}
	for _, w := range schemas {
		i := slices.IndexFunc(all.Items, func(s flowcontrolv1.FlowSchema) bool { return s.Name == w.Name })
		if i < 0 {
			return unprotected(again+"; with Helm, add --set flowControl.enabled=true", "flowschema/%s is missing", w.Name)
		}
		if dangling(all.Items[i]) {
			return unprotected(again, "flowschema/%s names a priority level that does not exist", w.Name)
		}
	}
	served, err := c.requests(ctx)
	if err != nil {
		return Finding{}, err
	}
	slices.SortFunc(all.Items, func(a, b flowcontrolv1.FlowSchema) int {
		return cmp.Or(cmp.Compare(a.Spec.MatchingPrecedence, b.Spec.MatchingPrecedence), cmp.Compare(a.Name, b.Name))
	})
	for _, r := range served {
		i := slices.IndexFunc(all.Items, func(s flowcontrolv1.FlowSchema) bool {
			return !dangling(s) && r.matches(s)
		})
		if i < 0 {
			return unprotected(again, "no FlowSchema has the requests of %s for %s", r.user(), r.resource)
		}
		first := all.Items[i]
		if at := first.Spec.PriorityLevelConfiguration.Name; at != wanted.Name && at != flowcontrolv1.PriorityLevelConfigurationNameExempt {
			do := fmt.Sprintf("exempt these requests from flowschema/%s, or give it a matchingPrecedence above %d", first.Name, schemas[0].Spec.MatchingPrecedence)
			if first.Spec.MatchingPrecedence > schemas[0].Spec.MatchingPrecedence {
				do = again // ours no longer matches
			}
			return unprotected(do, "flowschema/%s sends the requests of %s for %s to the priority level %s", first.Name, r.user(), r.resource, at)
		}
	}
	return ok("renewals have a priority level of their own in the API server")
}

func unprotected(do, format string, args ...any) (Finding, error) {
	return found(Warning, do, "renewals can wait behind the requests of other programs: "+format, args...)
}

// fewer reports whether a level gives the agents less than the wanted level does.
func fewer(is, wanted flowcontrolv1.PriorityLevelConfigurationSpec) bool {
	if is.Limited == nil {
		return is.Type != flowcontrolv1.PriorityLevelEnablementExempt
	}
	own := func(l *flowcontrolv1.LimitedPriorityLevelConfiguration) int32 {
		return ptr.Deref(l.NominalConcurrencyShares, 30) * (100 - ptr.Deref(l.LendablePercent, 0)) // 30 is the API server's default
	}
	return own(is.Limited) < own(wanted.Limited) || is.Limited.LimitResponse.Type != flowcontrolv1.LimitResponseTypeQueue
}

// dangling reports whether the FlowSchema's priority level does not exist. The API server passes over such a
// FlowSchema.
func dangling(s flowcontrolv1.FlowSchema) bool {
	return slices.ContainsFunc(s.Status.Conditions, func(c flowcontrolv1.FlowSchemaCondition) bool {
		return c.Type == flowcontrolv1.FlowSchemaConditionDangling && c.Status == flowcontrolv1.ConditionTrue
	})
}

// sent is a request of a service account for an object of its namespace.
type sent struct {
	namespace, account    string
	verb, group, resource string
	// in is the namespace of the requested object.
	in string
}

func (r sent) user() string { return r.namespace + "/" + r.account }

// requests returns the requests on which holds depend: those of each account that gated pods have, of the
// default account of each namespace that has opted in, and of the webhook.
func (c Cluster) requests(ctx context.Context) ([]sent, error) {
	namespaces, err := optedIn(ctx, c)
	if err != nil {
		return nil, err
	}
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.MatchingLabels{api.GatedLabel: api.Gated}); err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	accounts := map[[2]string]bool{}
	for _, n := range namespaces {
		accounts[[2]string{n, "default"}] = true
	}
	for _, p := range pods.Items {
		accounts[[2]string{p.Namespace, cmp.Or(p.Spec.ServiceAccountName, "default")}] = true
	}
	all := []sent{{home, name, "create", "coordination.k8s.io", "leases", "default"}}
	for a := range accounts {
		for _, verb := range []string{"get", "watch", "update"} {
			all = append(all, sent{a[0], a[1], verb, "coordination.k8s.io", "leases", a[0]})
		}
		all = append(all, sent{a[0], a[1], "patch", "", "pods/status", a[0]})
	}
	slices.SortFunc(all, func(a, b sent) int { return strings.Compare(a.user(), b.user()) })
	return all, nil
}

// matches reports whether the FlowSchema has the request.
func (r sent) matches(s flowcontrolv1.FlowSchema) bool {
	return slices.ContainsFunc(s.Spec.Rules, func(rule flowcontrolv1.PolicyRulesWithSubjects) bool {
		return slices.ContainsFunc(rule.Subjects, r.by) && slices.ContainsFunc(rule.ResourceRules, func(of flowcontrolv1.ResourcePolicyRule) bool {
			return hasOne(of.Verbs, r.verb, "*") && hasOne(of.APIGroups, r.group, "*") && hasOne(of.Resources, r.resource, "*") && hasOne(of.Namespaces, r.in, "*")
		})
	})
}

// by reports whether the subject is the account, or a group that has it.
func (r sent) by(subject flowcontrolv1.Subject) bool {
	switch {
	case subject.User != nil:
		return subject.User.Name == "*" || subject.User.Name == "system:serviceaccount:"+r.namespace+":"+r.account
	case subject.Group != nil:
		return slices.Contains([]string{"*", "system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + r.namespace}, subject.Group.Name)
	case subject.ServiceAccount != nil:
		return subject.ServiceAccount.Namespace == r.namespace && (subject.ServiceAccount.Name == "*" || subject.ServiceAccount.Name == r.account)
	}
	return false
}
