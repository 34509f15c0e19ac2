// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/diagnosis"
)

// maxEvents keeps the answer on one screen. Older Events mostly repeat the newer ones.
const maxEvents = 5

// subject names what the answer is about.
func (e *explainer) subject() string {
	switch {
	case e.asked != nil && e.group.Kind != "Pod":
		return "Pod/" + e.asked.Name + " (of " + e.group.String() + ")"
	case e.part != nil:
		return e.part.GetKind() + "/" + e.part.GetName() + " (of " + e.group.String() + ")"
	}
	return e.group.String()
}

// report returns the answer of the command "explain", the blockers first. Ages are measured by the
// clock of the person's computer.
func (e *explainer) report() string {
	var b strings.Builder
	say(&b, "%s in %s: %s", e.subject(), e.namespace, e.verdict)
	for i, f := range e.findings() {
		say(&b, "  - %s", f)
		if i == 0 && f.Run != "" {
			say(&b, "    run: %s", f.Run)
		}
	}
	optedIn := "opted in"
	if !e.optedIn() {
		optedIn = "not opted in"
	}
	section(&b, "namespace", [][]string{{e.namespace, optedIn}})
	section(&b, "annotations", e.annotationLines())
	section(&b, "slots", e.slotLines())
	section(&b, "why", column(e.why()))
	section(&b, "conditions", conditionLines(e))
	section(&b, "pods", e.podLines())
	section(&b, "events", e.eventLines())
	section(&b, "not readable", column(e.unread))
	return b.String()
}

// explanation is the answer of the command "explain" for a program.
type explanation struct {
	Subject   string `json:"subject"`
	Namespace string `json:"namespace"`
	OptedIn   bool   `json:"optedIn"`
	InForce   bool   `json:"inForce"`
	Verdict   string `json:"verdict"`
	// Trouble names pods that do not run, Blockers what keeps claims from being in force, and Notes
	// warnings about claims that are in force.
	Trouble  []string `json:"trouble,omitempty"`
	Blockers []string `json:"blockers,omitempty"`
	// Remedy is the command that helps against the first of them, if one does.
	Remedy string   `json:"remedy,omitempty"`
	Notes  []string `json:"notes,omitempty"`
	// Findings are all of these, each with its reason and its command.
	Findings    []diagnosis.Finding `json:"findings,omitempty"`
	Annotations []map[string]string `json:"annotations,omitempty"`
	Slots       []map[string]string `json:"slots,omitempty"`
	// Why says why a slot moved last, and what its next move waits for.
	Why         []string            `json:"why,omitempty"`
	Conditions  []map[string]string `json:"conditions,omitempty"`
	Pods        []map[string]string `json:"pods,omitempty"`
	Events      []map[string]string `json:"events,omitempty"`
	NotReadable []string            `json:"notReadable,omitempty"`
}

func (e *explainer) explanation() explanation {
	clean := func(texts []string) []string {
		var all []string
		for _, text := range texts {
			all = append(all, inOneLine(api.Shortened(text, mostCell)))
		}
		return all
	}
	named := func(lines [][]string, names ...string) (all []map[string]string) {
		for _, cells := range lines {
			one := map[string]string{}
			for i, cell := range clean(cells) {
				one[names[i]] = cell
			}
			all = append(all, one)
		}
		return all
	}
	x := explanation{
		Subject: inOneLine(e.subject()), Namespace: e.namespace, OptedIn: e.optedIn(), InForce: e.inForce(), Verdict: e.verdict,
		Annotations: named(e.annotationLines(), "annotation", "where"),
		Slots:       named(e.slotLines(), "slot", "state"),
		Why:         clean(e.why()),
		Conditions:  named(conditionLines(e), "condition", "state"),
		Pods:        named(e.podLines(), "pod", "state", "ready", "message"),
		Events:      named(e.eventLines(), "age", "event"),
		NotReadable: clean(e.unread),
	}
	for i, f := range e.findings() {
		to, text := &x.Notes, clean([]string{f.String()})
		switch {
		case i < len(e.trouble):
			to = &x.Trouble
		case f.Blocks:
			to = &x.Blockers
		}
		f.Says, f.Run, *to = clean([]string{f.Says})[0], inOneLine(f.Run), append(*to, text...)
		x.Findings = append(x.Findings, f)
	}
	if len(x.Findings) > 0 {
		x.Remedy = x.Findings[0].Run
	}
	return x
}

// mostCell is the largest number of bytes in a cell of a table. The names of all slots that a pod can
// claim by a list take fewer bytes. But tenants can write megabytes into Events and conditions.
const mostCell = 8 << 10

func column(texts []string) (lines [][]string) {
	for _, text := range texts {
		lines = append(lines, []string{text})
	}
	return lines
}

func section(b *strings.Builder, title string, lines [][]string) {
	if len(lines) == 0 {
		return
	}
	say(b, "%s:", title)
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		cells := make([]string, len(line))
		for i, cell := range line {
			cells[i] = api.Shortened(cell, mostCell)
		}
		row(table, cells...)
	}
	table.Flush()
}

func (e *explainer) annotationLines() [][]string {
	var lines [][]string
	effective := e.effective()
	for _, key := range slices.Sorted(maps.Keys(effective)) {
		if !strings.HasPrefix(key, api.Prefix) || api.Written(key) {
			continue
		}
		where := "on the pod"
		if e.workload != nil {
			where = "on the template"
			value, on := own(e.workload)[key]
			_, carried := e.template.Annotations[key]
			switch {
			case e.part != nil:
			case on && !carried:
				where = "on the workload, not on its template"
			case on && value == effective[key]:
				where = "on the workload and its template"
			}
		}
		lines = append(lines, []string{key + "=" + effective[key], where})
	}
	return lines
}

func (e *explainer) slotLines() [][]string {
	var lines [][]string
	for _, slot := range e.slots {
		lease, read := e.leases[slot]
		if !read {
			continue // the section "not readable" names this Lease
		}
		if api.IsRWLockSlot(slot) && !isIntent(slot) && (lease == nil || view.HolderOf(lease) == "" && api.PauseOf(lease.Annotations) == "") {
			continue // the line of the intent stands for the lock's free slots
		}
		if lease == nil {
			lines = append(lines, []string{slot, "has no Lease yet; enroll makes it where the namespace is opted in"})
			continue
		}
		text := e.holding(lease)
		if pause := api.PauseOf(lease.Annotations); pause != "" {
			text += fmt.Sprintf(", paused by hand (%s)", pause)
		}
		lines = append(lines, []string{slot, text})
	}
	return lines
}

// mostWhy bounds the sentences about slots, so that they fit on a screen.
const mostWhy = 12

// why returns sentences about the slots: why each moved last, as far as its Lease or an Event tells, and what
// its next move waits for.
func (e *explainer) why() (all []string) {
	for _, s := range e.seen {
		if text := movedText(s); text != "" {
			all = append(all, text)
		}
		all = append(all, s.Why...)
	}
	return all[:min(len(all), mostWhy)]
}

// movedText returns the sentence about the last move of a slot; empty if nothing tells about it.
func movedText(s view.Slot) string {
	to := " has been free since the release by "
	if s.Holder != nil {
		to = " moved to " + s.Holder.Pod + " from "
	}
	switch {
	case s.Moved != nil && s.Holder != nil && s.Holder.Pod == s.Moved.From:
		return s.Slot + " came back to " + s.Moved.String() + "."
	case s.Moved != nil:
		return s.Slot + to + s.Moved.String() + "."
	case s.Holder == nil || len(s.Handovers) == 0 || s.Handovers[0].Pod != s.Holder.Pod || s.Handovers[0].From == "":
		return ""
	case s.Handovers[0].Expired:
		return s.Slot + to + s.Handovers[0].From + ", whose lease expired" + because(s.Handovers[0]) + "."
	}
	return s.Slot + to + s.Handovers[0].From + because(s.Handovers[0]) + "."
}

// holding returns the line about a slot's holder.
func (e *explainer) holding(lease *coordinationv1.Lease) string {
	identity := ptr.Deref(lease.Spec.HolderIdentity, "")
	if identity == "" {
		if done := api.Done(lease.Annotations[api.DoneAnnotation]); len(done.Keys()) > 0 {
			return "free, done: " + strings.Join(done.Keys(), " ")
		}
		return "free"
	}
	name := api.PodOf(identity)
	ours := name != identity
	text := "held by " + name
	if token := lease.Annotations[api.TokenAnnotation]; token != "" {
		text += ", token " + token
	}
	if since := lease.Spec.AcquireTime; since != nil {
		text += fmt.Sprintf(", since %s (%s)", since.UTC().Format(time.RFC3339), age(e.now, since.Time))
	}
	if renewed := lease.Spec.RenewTime; renewed != nil {
		text += fmt.Sprintf(", renewed %s ago", age(e.now, renewed.Time))
	}
	seconds := ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)
	_, person := api.PersonOf(identity)
	switch {
	case person:
		text += fmt.Sprintf(", by kubectl metaparticle hold: free when that ends, or when it has not been renewed for %d s", seconds)
	case !ours:
		text += fmt.Sprintf(", which is no pod: free when it has not changed for %d s", seconds)
	case e.others[identity] == "":
		text += ", a pod that is gone: " + cmp.Or(view.Takeover(lease), fmt.Sprintf("free when it has not been renewed for %d s", seconds))
	default:
		text += e.serving(lease)
	}
	return text
}

// serving returns what is unusual about a holder whose pod exists; empty for nothing.
func (e *explainer) serving(lease *coordinationv1.Lease) (text string) {
	if takeover := view.Takeover(lease); takeover != "" {
		text = ", without a renewal " + takeover
	}
	switch {
	case lease.Annotations[api.ServingAnnotation] == "" && view.Young(lease, e.now):
		text += ", its application starts"
	case lease.Annotations[api.ServingAnnotation] == "":
		text += ", its application does not serve"
	}
	return text
}

func (e *explainer) podLines() [][]string {
	var lines [][]string
	for _, pod := range e.pods {
		if e.asked != nil && pod.UID != e.asked.UID {
			continue
		}
		lines = append(lines, append([]string{pod.Name}, e.podLine(pod)...))
	}
	return lines
}

// podLine returns the cells about a pod: what it does, whether the kubelet says that it is Ready, and
// why. What keeps the pod from running comes before what its agent says, which may be older.
func (e *explainer) podLine(pod corev1.Pod) []string {
	text := e.doing(pod)
	if pod.DeletionTimestamp != nil {
		grace := time.Duration(ptr.Deref(pod.DeletionGracePeriodSeconds, 0)) * time.Second
		text += ", is being deleted for " + age(e.now, pod.DeletionTimestamp.Add(-grace))
	} else if pod.Status.Phase != corev1.PodRunning {
		text += ", " + string(pod.Status.Phase)
	}
	trouble := ""
	if f := e.troubleOf(&pod); f != nil {
		trouble = f.Says
	}
	switch {
	case !view.Gated(pod) && trouble != "":
		return []string{text, readyText(pod), trouble}
	case !view.Gated(pod):
		return []string{text}
	case podspec.Leashed(&pod.Spec):
		return []string{text, readyText(pod), joined(trouble, view.AsksItself+", and shims kill it after the loss of a hold")}
	case podspec.ServesLocal(&pod.Spec):
		return []string{text, readyText(pod), joined(trouble, view.AsksItself)}
	}
	said := ""
	if trouble == "" {
		said = "its agent has not said anything yet"
	}
	if c, ok := view.Condition(pod); ok {
		said = c.Reason + ": " + c.Message
		if trouble == "" && c.Status == corev1.ConditionTrue && !view.Ready(pod) {
			trouble = unready(pod)
		}
	}
	return []string{text, readyText(pod), joined(trouble, said)}
}

// doing returns what the pod does, in a few words.
func (e *explainer) doing(pod corev1.Pod) string {
	c, _ := view.Condition(pod)
	switch held := e.heldBy(pod); {
	case !injected(pod):
		return "not gated"
	case waitsForConditions(pod):
		return "waits for its conditions"
	case waitsAtBarrier(pod):
		return "waits at its barrier"
	case !view.Gated(pod) && len(podspec.ConditionsOf(&pod.Spec)) == 0:
		return "its barrier was open"
	case !view.Gated(pod):
		return "its conditions were met"
	case len(held) > 0:
		return "holds " + strings.Join(shortened(held), ", ")
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return "has ended"
	case podspec.ServesLocal(&pod.Spec):
		return "holds nothing"
	case c.Reason == view.ReasonDone:
		return "skips its work, which is done"
	case e.troubleOf(&pod) != nil:
		return "does not run"
	case pod.Status.Phase == corev1.PodPending:
		return "starts"
	}
	return "stands by"
}

func readyText(pod corev1.Pod) string {
	if view.Ready(pod) {
		return "Ready"
	}
	return "not Ready"
}

// unready returns the kubelet's reason for a pod that is not Ready.
func unready(pod corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Reason != "" {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}

func joined(trouble, said string) string {
	return strings.Join(slices.DeleteFunc([]string{trouble, said}, func(s string) bool { return s == "" }), "; ")
}

func (e *explainer) heldBy(pod corev1.Pod) []string {
	var held []string
	for _, slot := range e.slots {
		lease := e.leases[slot]
		if lease != nil && ptr.Deref(lease.Spec.HolderIdentity, "") == api.Identity(pod.Name, string(pod.UID)) {
			held = append(held, slot)
		}
	}
	return held
}

func (e *explainer) eventLines() [][]string {
	var lines [][]string
	seen := map[string]bool{}
	for _, event := range e.events {
		// A ReplicaSet repeats a refusal for each new pod, so an equal text is shown once.
		text := fmt.Sprintf("%s/%s: %s: %s", event.InvolvedObject.Kind, event.InvolvedObject.Name, event.Reason,
			diagnosis.WithoutPod(event.Message))
		if seen[text] || len(lines) == maxEvents {
			continue
		}
		seen[text] = true
		lines = append(lines, []string{age(e.now, view.Last(event)) + " ago", text})
	}
	return lines
}

// age returns the time since an instant, as kubectl writes it.
func age(now, at time.Time) string { return duration.HumanDuration(max(0, now.Sub(at))) }
