// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judge sets the verdict on the existing pods, and the reasons. Most reasons concern pods created
// from now on, and some concern existing pods without a gate.
func (e *explainer) judge() {
	e.reasons = e.obstacles()
	request, err := api.Parse(e.effective())
	claims := err == nil && request.Injects()
	n := 0
	for _, pod := range e.pods {
		if injected(pod) {
			n++
		}
	}
	switch all := len(e.pods); {
	case e.asked != nil && injected(*e.asked):
		e.verdict = "gated"
	case e.asked != nil:
		e.verdict = "not gated"
	case all > 0 && n == all:
		e.verdict = fmt.Sprintf("gated, %s", count(n))
	case n > 0:
		e.verdict = fmt.Sprintf("gated in part, %d of %s", n, count(all))
	case all > 0:
		e.verdict = fmt.Sprintf("not gated, %s", count(all))
	case claims && len(e.reasons) == 0 && len(e.events) > 0:
		e.verdict = "no pods; the API server has refused pods, as the events tell"
	case claims && len(e.reasons) == 0:
		e.verdict = "no pods; the next are gated"
	default:
		e.verdict = "no pods"
	}
	if err == nil && !claims {
		e.reasons = append([]string{e.claimsNothing(request)}, e.reasons...)
	}
	switch {
	case e.asked != nil && injected(*e.asked), n > 0 && n == len(e.pods):
		if len(e.reasons) > 0 {
			e.verdict += "; of those to come:"
		}
	default:
		e.reasons = append(e.reasons, e.ungated(claims)...)
	}
}

func count(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}

// obstacles returns the reasons why pods created from now on would get no gate.
func (e *explainer) obstacles() []string {
	var reasons []string
	annotations := e.effective()
	request, err := api.Parse(annotations)
	mistakes, mistaken := errors.AsType[api.Mistakes](err)
	if mistaken || request.Injects() {
		reasons = e.namespaceObstacles()
	}
	if e.workload == nil {
		for _, m := range mistakes {
			reasons = append(reasons, reason.Refusal{Reason: reason.BadAnnotation, Detail: m.Error()}.Error())
		}
		return reasons
	}
	var old []byte
	if e.workload.GetKind() == "Job" {
		old = e.raw // an existing Job's template cannot change
	}
	missing, warnings, err := mutate.Carry(context.Background(), mutate.Workload{Kind: e.workload.GetKind(), Namespace: e.namespace, Raw: e.raw, Old: old, Kubernetes: e.cluster.minor})
	if err != nil {
		return append(reasons, err.Error())
	}
	for _, warning := range warnings {
		reasons = append(reasons, warning.Error())
	}
	if len(missing) > 0 {
		reasons = append(reasons, fmt.Sprintf("the template lacks %s: it was written before the namespace was opted in,"+
			" or while nothing was installed. Any change of the %s carries it%s",
			strings.Join(e.missingAnnotations(), ", "), e.workload.GetKind(), restart(e.workload.GetKind())))
	}
	return reasons
}

// restart names the command that changes a workload and replaces its pods. The text is empty for a
// kind of workload that kubectl cannot restart.
func restart(kind string) string {
	switch kind {
	case "Deployment", "StatefulSet", "DaemonSet":
		return "; kubectl rollout restart is one"
	}
	return ""
}

// missingAnnotations returns the workload's annotations that its template lacks.
func (e *explainer) missingAnnotations() []string {
	var keys []string
	for key := range e.effective() {
		if _, ok := e.template.Annotations[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// namespaceObstacles returns everything that prevents gating in this namespace.
func (e *explainer) namespaceObstacles() []string {
	var reasons []string
	if e.missing {
		reasons = append(reasons, "Metaparticle is not installed: there is no MutatingWebhookConfiguration "+webhookName)
	}
	if e.namespace == "kube-system" || e.namespace == "metaparticle-system" {
		reasons = append(reasons, "nothing is ever injected in "+e.namespace)
	} else if !e.optedIn() {
		reasons = append(reasons, policyReason("NamespaceNotOptedIn")+
			fmt.Sprintf(" (kubectl label namespace %s %s=%s)", e.namespace, api.InjectionLabel, api.InjectionEnabled))
	}
	return reasons
}

func (e *explainer) optedIn() bool { return e.labels[api.InjectionLabel] == api.InjectionEnabled }

func (e *explainer) claimsNothing(request api.Request) string {
	what := "it and its template claim nothing"
	if e.workload == nil {
		what = "it claims nothing"
	}
	if request.OptOut {
		return what + ", and opt out by " + api.InjectAnnotation
	}
	if label := claimedByLabel(e); label != "" {
		return fmt.Sprintf("%s: %s is a label there, and only an annotation counts", what, label)
	}
	if wrong, known := mistyped(e); wrong != "" {
		return fmt.Sprintf("%s: %s has another prefix, and has no effect: did you mean %s?", what, wrong, known)
	}
	if e.workload != nil {
		if own, err := api.Parse(e.workload.GetAnnotations()); err == nil && own.Injects() {
			// The reason TemplateDiffers has the remedy.
			return "the value in its template counts, and claims nothing"
		}
	}
	return fmt.Sprintf("%s: annotate it with %s=true or %s=NAME", what, api.SingletonAnnotation, api.LockAnnotation)
}

// nearPrefix matches prefixes that a person may type instead of ours, in lower case. The policy
// "ineffective" warns of the same prefixes.
var nearPrefix = regexp.MustCompile(`^me[ta]{0,3}-?p[articles]{3,10}[.,-]?[a-z]{0,3}/[a-z-]+$`)

// mistyped returns an annotation whose prefix is almost ours, and the annotation with our prefix.
// The API server calls no webhook for such a prefix. Only the policy "ineffective" warns, and only
// the person that applies the workload.
func mistyped(e *explainer) (string, string) {
	for _, o := range annotated(e) {
		for _, key := range slices.Sorted(maps.Keys(o.GetAnnotations())) {
			_, name, _ := strings.Cut(strings.ToLower(key), "/")
			known := api.Prefix + name
			if !strings.HasPrefix(key, api.Prefix) && nearPrefix.MatchString(strings.ToLower(key)) && api.Known(known) {
				return key, known
			}
		}
	}
	return "", ""
}

// claimedByLabel returns the key of a label that has an effect only as an annotation. The result is
// empty if no label of the workload, of its template or of the named pod has such a key.
func claimedByLabel(e *explainer) string {
	for _, o := range annotated(e) {
		for _, key := range slices.Sorted(maps.Keys(o.GetLabels())) {
			if api.Carried(key) && api.Known(key) {
				return key
			}
		}
	}
	return ""
}

// annotated returns the objects on which a person may have written a claim: the template, the workload
// and the named pod.
func annotated(e *explainer) []metav1.Object {
	all := []metav1.Object{&e.template}
	if e.workload != nil {
		all = append(all, e.workload)
	}
	if e.asked != nil {
		all = append(all, e.asked)
	}
	return all
}

// ungated returns the reasons why existing pods have no gate. A pod that claims by its own
// annotations has another reason than other pods. The admission policies make this distinction,
// too.
func (e *explainer) ungated(claims bool) []string {
	var reasons []string
	template, err := api.Parse(e.template.Annotations)
	rolling := err == nil && template.Injects()
	for _, pod := range e.pods {
		if injected(pod) || pod.DeletionTimestamp != nil || e.asked != nil && pod.UID != e.asked.UID {
			continue
		}
		request, err := api.Parse(pod.Annotations)
		switch {
		case err != nil:
			continue // the method "obstacles" names mistakes in annotations
		case request.Injects() && e.optedIn():
			reasons = append(reasons, policyReason("NotInjected"))
		case request.Injects() || !claims:
			// Either the namespace lacks the label, or the workload claims nothing. The
			// method "judge" reports both cases.
			continue
		case rolling:
			reasons = append(reasons, "pods from before the annotation run ungated until a rollout has replaced them")
		case e.workload != nil && e.workload.GetKind() == "Job":
			continue // the reason JobImmutable covers this pod
		case !e.optedIn():
			continue // a restart gates no pod before the label, which NamespaceNotOptedIn names
		default:
			reasons = append(reasons, policyReason("NotGated"))
		}
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}

// policyReason returns the name, meaning and remedy of a reason of the policies or of enroll.
func policyReason(name reason.Reason) string {
	for _, e := range reason.Elsewhere {
		if e.Reason == name {
			return fmt.Sprintf("%s: %s: %s", e.Reason, strings.TrimSuffix(strings.TrimPrefix(e.Meaning, "An Event: "), "."), e.Do)
		}
	}
	return string(name)
}
