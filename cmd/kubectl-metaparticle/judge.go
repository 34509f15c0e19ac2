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
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/diagnosis"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judge sets the verdict on the existing pods, and the reasons. Most reasons concern pods created
// from now on, and some concern existing pods without a gate.
func (e *explainer) judge() {
	e.obstacles()
	request, err := api.Parse(e.effective())
	claims := err == nil && request.Injects()
	if err == nil && !claims {
		e.first(e.claimsNothing(request))
	}
	if slot := e.paused(); slot != "" {
		e.first(diagnosis.Finding{
			Reason: view.Paused, Says: slot + " is paused by hand, so no pod acquires it",
			Run: "kubectl metaparticle resume -n " + e.namespace + " " + slot,
		})
	}
	refused := e.refused()
	gated := 0
	for i, pod := range e.pods {
		if injected(pod) {
			gated++
		}
		if f := e.troubleOf(&e.pods[i]); f != nil && (e.asked == nil || e.asked.UID == pod.UID) {
			e.trouble = append(e.trouble, *f)
		}
	}
	switch all := len(e.pods); {
	case e.asked != nil && injected(*e.asked):
		e.verdict = "gated"
	case e.asked != nil:
		e.verdict = "not gated"
	case all > 0 && gated == all:
		e.verdict = fmt.Sprintf("gated, %s", count(gated))
	case gated > 0:
		e.verdict = fmt.Sprintf("gated in part, %d of %s", gated, count(all))
	case all > 0:
		e.verdict = fmt.Sprintf("not gated, %s", count(all))
	case claims && refused != nil:
		e.verdict = "no pods, because new ones are refused"
	case claims && len(e.blockers()) == 0:
		e.verdict = "no pods; the next are gated"
	default:
		e.verdict = "no pods"
	}
	if refused != nil {
		e.first(*refused)
	}
	whole := e.asked != nil && injected(*e.asked) || gated > 0 && gated == len(e.pods)
	switch {
	case len(e.trouble) > 0:
		e.verdict += fmt.Sprintf(", %d in trouble:", len(e.trouble))
	case whole && len(e.found) > 0:
		e.verdict += "; for new pods:"
	}
	if !whole {
		e.ungated(claims)
	}
}

// first puts a finding before the others.
func (e *explainer) first(f diagnosis.Finding) {
	e.found = append([]diagnosis.Finding{f}, e.found...)
}

// block adds what keeps a claim from being in force, and note what else a person should know. The command can be empty.
func (e *explainer) block(of reason.Reason, run, format string, args ...any) {
	e.found = append(e.found, diagnosis.Finding{Reason: of, Says: fmt.Sprintf(format, args...), Run: run, Blocks: true})
}

func (e *explainer) note(of reason.Reason, run, format string, args ...any) {
	e.found = append(e.found, diagnosis.Finding{Reason: of, Says: fmt.Sprintf(format, args...), Run: run})
}

// blockers returns the findings that keep claims from being in force.
func (e *explainer) blockers() (all []diagnosis.Finding) {
	for _, f := range e.found {
		if f.Blocks {
			all = append(all, f)
		}
	}
	return all
}

// findings returns all findings: pods in trouble, then what keeps claims from being in force, then notes.
func (e *explainer) findings() []diagnosis.Finding {
	notes := slices.DeleteFunc(slices.Clone(e.found), func(f diagnosis.Finding) bool { return f.Blocks })
	return slices.Concat(e.trouble, e.blockers(), notes)
}

// troubleOf returns what keeps the pod from running its application; nil for nothing.
func (e *explainer) troubleOf(pod *corev1.Pod) *diagnosis.Finding {
	exists := func(slot string) bool { return e.leases[slot] != nil }
	return diagnosis.OfPod(pod, diagnosis.Leases{Held: len(e.heldBy(*pod)) > 0, Missing: diagnosis.Missing(pod, exists)}, e.now)
}

// meaning returns the command that explains a reason; empty for a text that is none.
func meaning(of reason.Reason) string {
	if explanationOf(string(of)) == nil {
		return ""
	}
	return "kubectl metaparticle explain " + string(of)
}

// restarts returns the command that makes gated pods of the workload's old ones, or the one that explains the reason.
func (e *explainer) restarts(of reason.Reason) string {
	if e.workload == nil || restart(e.workload.GetKind()) == "" {
		return meaning(of)
	}
	return "kubectl -n " + e.namespace + " rollout restart " + strings.ToLower(e.workload.GetKind()) + "/" + e.workload.GetName()
}

// paused returns the first slot that nobody holds and no pod can acquire, because a person has paused it.
func (e *explainer) paused() string {
	for _, slot := range e.slots {
		if l := e.leases[slot]; l != nil && api.PauseOf(l.Annotations) != "" && view.HolderOf(l) == "" {
			return slot
		}
	}
	return ""
}

// explanations are all reasons that the plugin knows.
var explanations = slices.Concat(reason.All, reason.Elsewhere, diagnosis.Explained())

// explanationOf returns what a reason means and what to do about it; nil for a text that is no reason.
func explanationOf(name string) *reason.Explanation {
	for _, known := range explanations {
		if strings.EqualFold(string(known.Reason), name) {
			return &known
		}
	}
	return nil
}

// inForce reports whether each claim is in force: nothing keeps the pods to come from their gates, no
// pod runs without its gate, and a pod can run.
func (e *explainer) inForce() bool {
	asked := len(e.pods)
	if e.asked != nil {
		asked = 1
	}
	return len(e.blockers()) == 0 && (len(e.trouble) == 0 || len(e.trouble) < asked)
}

// refused returns the newest refusal of a pod that may concern the pods to come; nil if another finding
// already names the cause.
func (e *explainer) refused() *diagnosis.Finding {
	for _, event := range e.events { // the newest is the first
		of := reasonOf(event)
		if event.Reason != failedCreate && !diagnosis.IsRefusal(event.Message) || e.outdated(event) {
			continue
		}
		if of != "" && slices.ContainsFunc(e.found, func(f diagnosis.Finding) bool { return f.Blocks && f.Reason == of }) {
			return nil
		}
		return &diagnosis.Finding{
			Reason: of, Run: meaning(of), Blocks: true,
			Says: fmt.Sprintf("new pods are refused: %s (%s ago)", api.Shortened(diagnosis.Refusal(event.Message), mostCell), age(e.now, view.Last(event))),
		}
	}
	return nil
}

// reasonOf returns the reason for which the webhook or a policy refused a pod; empty if somebody else did. Controllers
// write the API server's whole answer into their Events, and our answers begin with the reason.
func reasonOf(refusal corev1.Event) reason.Reason {
	name, _, _ := strings.Cut(diagnosis.Refusal(refusal.Message), ": ")
	for _, name := range []string{refusal.Reason, name} {
		if known := explanationOf(name); known != nil {
			return known.Reason
		}
	}
	return ""
}

// outdated reports that a refusal says nothing about the pods to come: it concerns an earlier template,
// or the controller has made a pod since then, or tries anew at once, because the object was changed. An
// earlier ReplicaSet goes on to be refused until the rollout has scaled it down, and an Event of the
// webhook, which is about the workload, does not tell whose pod was refused.
func (e *explainer) outdated(refusal corev1.Event) bool {
	if e.current == nil {
		return true
	}
	current, of := e.current.GetUID(), refusal.InvolvedObject.UID
	earlier := func(about types.UID) bool { return about != current && about != e.workload.GetUID() }
	if earlier(of) || of != current && slices.ContainsFunc(e.events, func(other corev1.Event) bool {
		return other.Reason == failedCreate && earlier(other.InvolvedObject.UID)
	}) {
		return true
	}
	at := view.Last(refusal).Truncate(time.Second) // as the times of objects are
	changed := e.current.GetCreationTimestamp().Time
	for _, by := range e.current.GetManagedFields() {
		if by.Subresource == "" && by.Time != nil && by.Time.After(changed) {
			changed = by.Time.Time
		}
	}
	return changed.After(at) || slices.ContainsFunc(e.pods, func(pod corev1.Pod) bool {
		by := metav1.GetControllerOf(&pod)
		return by != nil && by.UID == current && !pod.CreationTimestamp.Time.Before(at)
	})
}

func count(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}

// obstacles adds the reasons why pods created from now on would get no gate, and warnings about
// pods that get one.
func (e *explainer) obstacles() {
	request, err := api.Parse(e.effective())
	mistakes, mistaken := errors.AsType[api.Mistakes](err)
	if mistaken || request.Injects() {
		e.namespaceObstacles()
	}
	if e.workload == nil || e.part != nil {
		for _, refused := range reason.Mistaken(mistakes) {
			e.block(refused.Reason, meaning(refused.Reason), "%s", refused)
		}
		return
	}
	kind := e.workload.GetKind()
	var old []byte
	if kind == "Job" {
		old = e.raw // an existing Job's template cannot change
	}
	missing, warnings, err := mutate.Carry(context.Background(), mutate.Workload{
		Kind: kind, Namespace: e.namespace, Raw: e.raw, Old: old, Kubernetes: e.cluster.minor, AccessModes: e.modes,
	})
	if err != nil {
		e.block("", "", "%s", err)
		return
	}
	for _, w := range warnings {
		if w.Reason == reason.JobImmutable || w.Reason == reason.NoEffectHere || reason.Refuses(w.Reason) {
			e.block(w.Reason, meaning(w.Reason), "%s", w)
		} else {
			e.note(w.Reason, meaning(w.Reason), "%s", w)
		}
	}
	if len(missing) > 0 {
		e.block(view.NotCarried, e.restarts(view.NotCarried), "the template lacks %s: it was written before the namespace was opted in,"+
			" or while nothing was installed. Any change of the %s carries it%s",
			strings.Join(e.missingAnnotations(), ", "), kind, restart(kind))
	}
}

// restart names the command that changes a workload and replaces its pods. The text is empty for a
// kind of workload that kubectl cannot restart.
func restart(kind string) string {
	switch {
	case api.BuiltinOwner(kind).Restarts:
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

// namespaceObstacles adds everything that prevents gating in this namespace.
func (e *explainer) namespaceObstacles() {
	if e.missing {
		e.block("", "kubectl metaparticle check", "Metaparticle is not installed: there is no MutatingWebhookConfiguration %s", webhookName)
	}
	if e.namespace == "kube-system" || e.namespace == "metaparticle-system" {
		e.block("", "", "nothing is ever injected in %s", e.namespace)
	} else if !e.optedIn() {
		label := fmt.Sprintf("kubectl label namespace %s %s=%s", e.namespace, api.InjectionLabel, api.InjectionEnabled)
		e.block("NamespaceNotOptedIn", label, "%s (%s)", policyReason("NamespaceNotOptedIn"), label)
	}
}

func (e *explainer) optedIn() bool { return e.labels[api.InjectionLabel] == api.InjectionEnabled }

// claimsNothing tells why there is no claim. The finding blocks if a person meant to claim.
func (e *explainer) claimsNothing(request api.Request) diagnosis.Finding {
	what := "it and its template claim nothing"
	if e.workload == nil || e.part != nil {
		what = "it claims nothing"
	}
	meant := func(format string, args ...any) diagnosis.Finding {
		return diagnosis.Finding{Says: fmt.Sprintf(format, args...), Blocks: true}
	}
	if request.OptOut {
		return diagnosis.Finding{Says: what + ", and opt out by " + api.InjectAnnotation}
	}
	if labels := claimedByLabel(e); len(labels) == 1 {
		return meant("%s: %s is a label there, and only an annotation counts", what, labels[0])
	} else if len(labels) > 1 {
		return meant("%s: %s are labels there, and only annotations count", what, strings.Join(labels, ", "))
	}
	if wrong := mistyped(e); len(wrong) > 0 {
		return meant("%s: %s", what, strings.Join(wrong, "; "))
	}
	if e.workload != nil {
		if on, err := api.Parse(own(e.workload)); err == nil && on.Injects() {
			if e.part != nil {
				return meant("it is older than the claim of %s, and its pods run without a gate; the next %s is gated", e.group, e.part.GetKind())
			}
			if by := e.controller(); by != nil {
				return meant("%s/%s writes its pod template, which claims nothing", by.Kind, by.Name)
			}
			// The reason TemplateDiffers has the remedy.
			return meant("the value in its template counts, and claims nothing")
		}
	}
	return diagnosis.Finding{Says: fmt.Sprintf("%s: annotate it with %s=true or %s=NAME", what, api.SingletonAnnotation, api.LockAnnotation)}
}

// nearPrefix matches prefixes that a person may type instead of ours, in lower case. The policy
// "ineffective" warns of the same prefixes.
var nearPrefix = regexp.MustCompile(`^me[ta]{0,3}-?p[articles]{3,10}[.,-]?[a-z]{0,3}/[a-z-]+$`)

// mostMisspelt bounds the keys that one message names.
const mostMisspelt = 5

// misspelt returns the annotation that a person meant by a key whose prefix is almost ours; empty for
// any other key. The API server calls no webhook for such a prefix. Only the policy "ineffective"
// warns, and only the person that applies the workload.
func misspelt(key string) string {
	lower := strings.ToLower(key)
	_, name, _ := strings.Cut(lower, "/")
	if strings.HasPrefix(key, api.Prefix) || !nearPrefix.MatchString(lower) || !api.Known(api.Prefix+name) {
		return ""
	}
	return api.Prefix + name
}

// mistyped says which annotations have a prefix that is almost ours.
func mistyped(e *explainer) (wrong []string) {
	for _, o := range annotated(e) {
		for _, key := range slices.Sorted(maps.Keys(o.GetAnnotations())) {
			text := fmt.Sprintf("%s has another prefix, and has no effect: did you mean %s?", key, misspelt(key))
			if misspelt(key) != "" && len(wrong) < mostMisspelt && !slices.Contains(wrong, text) {
				wrong = append(wrong, text)
			}
		}
	}
	return wrong
}

// claimedByLabel returns the keys of labels that have an effect only as annotations: labels of the
// workload, of its template or of the named pod.
func claimedByLabel(e *explainer) (keys []string) {
	for _, o := range annotated(e) {
		for _, key := range slices.Sorted(maps.Keys(o.GetLabels())) {
			if api.Carried(key) && api.Known(key) && !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// annotated returns the objects on which a person may have written a claim: the template, the workload
// and the named pod.
func annotated(e *explainer) []metav1.Object {
	all := []metav1.Object{&e.template}
	if of := e.of(); of != nil {
		all = append(all, of)
	}
	if e.asked != nil {
		all = append(all, e.asked)
	}
	return all
}

// ungated adds the reasons why existing pods have no gate. A pod that claims by its own
// annotations has another reason than other pods. The admission policies make this distinction,
// too.
func (e *explainer) ungated(claims bool) {
	template, err := api.Parse(e.template.Annotations)
	rolling := err == nil && template.Injects()
	said := map[string]bool{}
	add := func(of reason.Reason, run, says string) {
		if !said[says] {
			e.block(of, run, "%s", says)
		}
		said[says] = true
	}
	for _, pod := range e.pods {
		if injected(pod) || pod.DeletionTimestamp != nil || e.asked != nil && pod.UID != e.asked.UID {
			continue
		}
		request, err := api.Parse(pod.Annotations)
		switch {
		case err != nil:
			continue // the method "obstacles" names mistakes in annotations
		case request.Injects() && e.optedIn():
			add("NotInjected", meaning("NotInjected"), policyReason("NotInjected"))
		case request.Injects() || !claims:
			// Either the namespace lacks the label, or the workload claims nothing. The
			// method "judge" reports both cases.
			continue
		case rolling && e.group.Kind == "CronJob":
			add(view.Ungated, "", "pods of Jobs from before the annotation run ungated to their end")
		case rolling:
			add(view.Ungated, e.restarts(view.Ungated), "pods from before the annotation run ungated until a rollout has replaced them")
		case e.workload != nil && e.workload.GetKind() == "Job":
			continue // the reason JobImmutable covers this pod
		case !e.optedIn():
			continue // a restart gates no pod before the label, which NamespaceNotOptedIn names
		default:
			add("NotGated", e.restarts("NotGated"), policyReason("NotGated"))
		}
	}
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
