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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judge sets the verdict on the existing pods, and the reasons. Most reasons concern pods created
// from now on, and some concern existing pods without a gate.
func (e *explainer) judge() {
	e.blockers, e.notes = e.obstacles()
	request, err := api.Parse(e.effective())
	claims := err == nil && request.Injects()
	if err == nil && !claims {
		text, meant := e.claimsNothing(request)
		if meant {
			e.blockers = append([]string{text}, e.blockers...)
		} else {
			e.notes = append([]string{text}, e.notes...)
		}
	}
	if slot := e.paused(); slot != "" {
		e.notes = append([]string{slot + " is paused by hand, so no pod acquires it"}, e.notes...)
	}
	refused := e.refused()
	gated := 0
	for _, pod := range e.pods {
		if injected(pod) {
			gated++
		}
		if trouble := e.troubleOf(pod); trouble != "" && (e.asked == nil || e.asked.UID == pod.UID) {
			e.trouble = append(e.trouble, "pod "+pod.Name+": "+trouble)
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
	case claims && refused != "":
		e.verdict = "no pods, because new ones are refused"
	case claims && len(e.blockers) == 0:
		e.verdict = "no pods; the next are gated"
	default:
		e.verdict = "no pods"
	}
	if refused != "" {
		e.blockers = append([]string{refused}, e.blockers...)
	}
	whole := e.asked != nil && injected(*e.asked) || gated > 0 && gated == len(e.pods)
	switch {
	case len(e.trouble) > 0:
		e.verdict += fmt.Sprintf(", %d in trouble:", len(e.trouble))
	case whole && len(e.blockers)+len(e.notes) > 0:
		e.verdict += "; of those to come:"
	}
	if !whole {
		e.blockers = append(e.blockers, e.ungated(claims)...)
	}
}

// troubleOf returns what keeps the pod from running its application; empty for nothing.
func (e *explainer) troubleOf(pod corev1.Pod) string {
	trouble := view.Trouble(pod)
	if trouble == "" && len(e.heldBy(pod)) == 0 { // somebody refuses the condition of a pod that holds
		trouble = view.SilentAgent(pod, e.now)
	}
	return trouble
}

// reasonIn matches the name of a reason in a blocker.
var reasonIn = regexp.MustCompile(`(?:^|: )([A-Z][A-Za-z]+): `)

// remedy returns the one command that helps against the first obstacle; empty if none does.
func (e *explainer) remedy() string {
	first := slices.Concat(e.trouble, e.blockers, e.notes, []string{""})[0]
	kubectl := "kubectl -n " + e.namespace + " "
	named := ""
	if m := reasonIn.FindStringSubmatch(first); m != nil && explanationOf(m[1]) != nil {
		named = m[1]
	}
	restarts := e.workload != nil && restart(e.workload.GetKind()) != ""
	switch {
	case first == "":
		return ""
	case len(e.trouble) > 0:
		pod, _, _ := strings.Cut(strings.TrimPrefix(first, "pod "), ":")
		if slices.ContainsFunc(e.pods, func(p corev1.Pod) bool { return p.Name == pod && view.SilentAgent(p, e.now) != "" }) {
			return kubectl + "logs " + pod + " -c " + api.AgentContainer
		}
		return kubectl + "describe pod " + pod
	case e.paused() != "" && strings.HasPrefix(first, e.paused()):
		return "kubectl metaparticle resume -n " + e.namespace + " " + e.paused()
	case e.missing:
		return "kubectl metaparticle check"
	case named == "NamespaceNotOptedIn":
		return fmt.Sprintf("kubectl label namespace %s %s=%s", e.namespace, api.InjectionLabel, api.InjectionEnabled)
	case restarts && (named == "NotGated" || strings.Contains(first, "until a rollout has replaced them") || strings.HasPrefix(first, "the template lacks")):
		return kubectl + "rollout restart " + strings.ToLower(e.workload.GetKind()) + "/" + e.workload.GetName()
	case named != "":
		return "kubectl metaparticle explain " + named
	}
	return ""
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

// explanationOf returns what a reason means and what to do about it; nil for a text that is no reason.
func explanationOf(name string) *reason.Explanation {
	for _, known := range slices.Concat(reason.All, reason.Elsewhere) {
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
	return len(e.blockers) == 0 && (len(e.trouble) == 0 || len(e.trouble) < asked)
}

// refusalPrefix matches what the API server and controllers write before the words of a refusal.
var refusalPrefix = regexp.MustCompile(`^(A pod was refused: |.*denied (the )?request: )`)

// refused returns the newest refusal of a pod that may concern the pods to come, unless another reason
// already names the cause.
func (e *explainer) refused() string {
	for _, event := range e.events { // the newest is the first
		if event.Reason != failedCreate && !refusalPrefix.MatchString(event.Message) || e.outdated(event) {
			continue
		}
		named := func(reason string) bool { return strings.Contains(event.Message, reason) }
		if slices.ContainsFunc(e.blockers, named) {
			return ""
		}
		text := refusalPrefix.ReplaceAllString(withoutPod(event.Message), "")
		return fmt.Sprintf("new pods are refused: %s (%s ago)", api.Shortened(text, mostCell), age(e.now, view.Last(event)))
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

// obstacles returns the reasons why pods created from now on would get no gate, and warnings about
// pods that get one.
func (e *explainer) obstacles() (blockers, notes []string) {
	request, err := api.Parse(e.effective())
	mistakes, mistaken := errors.AsType[api.Mistakes](err)
	if mistaken || request.Injects() {
		blockers = e.namespaceObstacles()
	}
	if e.workload == nil || e.part != nil {
		for _, refused := range reason.Mistaken(mistakes) {
			blockers = append(blockers, refused.Error())
		}
		return blockers, nil
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
		return append(blockers, err.Error()), nil
	}
	for _, warning := range warnings {
		if warning.Reason == reason.JobImmutable || warning.Reason == reason.NoEffectHere || reason.Refuses(warning.Reason) {
			blockers = append(blockers, warning.Error())
		} else {
			notes = append(notes, warning.Error())
		}
	}
	if len(missing) > 0 {
		blockers = append(blockers, fmt.Sprintf("the template lacks %s: it was written before the namespace was opted in,"+
			" or while nothing was installed. Any change of the %s carries it%s",
			strings.Join(e.missingAnnotations(), ", "), kind, restart(kind)))
	}
	return blockers, notes
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

// claimsNothing tells why there is no claim. The second result reports that a person meant to claim.
func (e *explainer) claimsNothing(request api.Request) (text string, meant bool) {
	what := "it and its template claim nothing"
	if e.workload == nil || e.part != nil {
		what = "it claims nothing"
	}
	if request.OptOut {
		return what + ", and opt out by " + api.InjectAnnotation, false
	}
	if labels := claimedByLabel(e); len(labels) == 1 {
		return fmt.Sprintf("%s: %s is a label there, and only an annotation counts", what, labels[0]), true
	} else if len(labels) > 1 {
		return fmt.Sprintf("%s: %s are labels there, and only annotations count", what, strings.Join(labels, ", ")), true
	}
	if wrong := mistyped(e); len(wrong) > 0 {
		return what + ": " + strings.Join(wrong, "; "), true
	}
	if e.workload != nil {
		if on, err := api.Parse(own(e.workload)); err == nil && on.Injects() {
			if e.part != nil {
				return fmt.Sprintf("it is older than the claim of %s, and its pods run without a gate; the next %s is gated", e.group, e.part.GetKind()), true
			}
			if by := e.controller(); by != nil {
				return fmt.Sprintf("%s/%s writes its pod template, which claims nothing", by.Kind, by.Name), true
			}
			// The reason TemplateDiffers has the remedy.
			return "the value in its template counts, and claims nothing", true
		}
	}
	return fmt.Sprintf("%s: annotate it with %s=true or %s=NAME", what, api.SingletonAnnotation, api.LockAnnotation), false
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
		case rolling && e.group.Kind == "CronJob":
			reasons = append(reasons, "pods of Jobs from before the annotation run ungated to their end")
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

// mostRefusals bounds the controllers that the command "status" names, so that the notes fit on a screen.
const mostRefusals = 5

// mostRefusal is the largest number of bytes that the command "status" shows of one Event.
const mostRefusal = 512

// addRefusals adds the Events about refused pods to the state, so that the slots of their workloads need
// attention.
func (o objects) addRefusals(events []corev1.Event) {
	for i := range events {
		o.events[events[i].UID] = &events[i]
	}
}

// refusals returns the Events about refused pods, the newest first, and a note for each controller whose pods the webhook or a policy refused, the newest
// first. A refused pod has no slot yet, so the list of slots lacks such a pod. The API server keeps
// Events for an hour. A person who may not read Events gets no notes.
func (c cluster) refusals(ctx context.Context, namespace string, now time.Time) ([]corev1.Event, []string) {
	var events corev1.EventList
	if err := c.List(ctx, &events, client.InNamespace(namespace), client.MatchingFields{"reason": view.FailedCreate}); err != nil {
		return nil, nil
	}
	slices.SortStableFunc(events.Items, func(a, b corev1.Event) int { return view.Last(b).Compare(view.Last(a)) })
	var notes []string
	seen := map[types.UID]bool{}
	for _, event := range events.Items {
		of := event.InvolvedObject
		switch {
		case !refuses(event) || seen[of.UID]:
			continue
		case len(notes) == mostRefusals:
			return events.Items, append(notes, "further controllers had pods refused: kubectl get events -A --field-selector reason=FailedCreate")
		}
		seen[of.UID] = true
		notes = append(notes, fmt.Sprintf("a pod of %s/%s in %s was refused %s ago: %s", of.Kind, of.Name, event.Namespace,
			age(now, view.Last(event)), api.Shortened(withoutPod(event.Message), mostRefusal)))
	}
	return events.Items, notes
}
