// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"regexp"
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
)

// maxEvents keeps the answer on one screen. Older Events mostly repeat the newer ones.
const maxEvents = 5

// report returns the answer of the command "explain". Ages are measured by the clock of
// the person's computer.
func (e *explainer) report() string {
	var b strings.Builder
	subject := e.group.String()
	if e.asked != nil {
		subject = "Pod/" + e.asked.Name
		if e.group.Kind != "Pod" {
			subject += " (of " + e.group.String() + ")"
		}
	}
	say(&b, "%s in %s: %s", subject, e.namespace, e.verdict)
	for _, reason := range e.reasons {
		say(&b, "  - %s", reason)
	}
	optedIn := "opted in"
	if !e.optedIn() {
		optedIn = "not opted in"
	}
	section(&b, "namespace", []string{e.namespace + "\t" + optedIn})
	section(&b, "annotations", e.annotationLines())
	section(&b, "slots", e.slotLines())
	section(&b, "conditions", conditionLines(e))
	section(&b, "pods", e.podLines())
	section(&b, "events", e.eventLines())
	section(&b, "not readable", e.unread)
	return b.String()
}

// mostCell is the largest number of bytes in a cell of a table. The names of all slots that a pod can
// claim by a list take fewer bytes. But tenants can write megabytes into Events and conditions.
const mostCell = 8 << 10

func section(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	say(b, "%s:", title)
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		cells := strings.Split(line, "\t")
		for i, cell := range cells {
			cells[i] = api.Shortened(cell, mostCell)
		}
		row(table, cells...)
	}
	table.Flush()
}

func (e *explainer) annotationLines() []string {
	var lines []string
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
			case on && !carried:
				where = "on the workload, not on its template"
			case on && value == effective[key]:
				where = "on the workload and its template"
			}
		}
		lines = append(lines, fmt.Sprintf("%s=%s\t%s", key, effective[key], where))
	}
	return lines
}

func (e *explainer) slotLines() []string {
	var lines []string
	for _, slot := range e.slots {
		lease, read := e.leases[slot]
		if !read {
			continue // the section "not readable" names this Lease
		}
		if api.IsRWLockSlot(slot) && !isIntent(slot) && (lease == nil || view.HolderOf(lease) == "" && api.PauseOf(lease.Annotations) == "") {
			continue // the line of the intent stands for the lock's free slots
		}
		if lease == nil {
			lines = append(lines, slot+"\thas no Lease yet; enroll makes it where the namespace is opted in")
			continue
		}
		text := e.holding(lease)
		if pause := api.PauseOf(lease.Annotations); pause != "" {
			text += fmt.Sprintf(", paused by hand (%s)", pause)
		}
		lines = append(lines, slot+"\t"+text)
	}
	return lines
}

// holding returns the line about a slot's holder.
func (e *explainer) holding(lease *coordinationv1.Lease) string {
	identity := ptr.Deref(lease.Spec.HolderIdentity, "")
	if identity == "" {
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
	switch {
	case !ours:
		text += fmt.Sprintf(", which is no pod: free when it has not changed for %d s", seconds)
	case e.others[identity] == "":
		text += fmt.Sprintf(", a pod that is gone: free when it has not been renewed for %d s", seconds)
	case lease.Annotations[api.ServingAnnotation] == "" && view.Young(lease, e.now):
		text += ", its application starts"
	case lease.Annotations[api.ServingAnnotation] == "":
		text += ", its application does not run"
	}
	return text
}

func (e *explainer) podLines() []string {
	var lines []string
	for _, pod := range e.pods {
		if e.asked != nil && pod.UID != e.asked.UID {
			continue
		}
		lines = append(lines, pod.Name+"\t"+e.podLine(pod))
	}
	return lines
}

func (e *explainer) podLine(pod corev1.Pod) string {
	var text string
	switch held := e.heldBy(pod); {
	case !injected(pod):
		text = "not gated"
	case waitsForConditions(pod):
		text = "waits for its conditions"
	case waitsAtBarrier(pod):
		text = "waits at its barrier"
	case !view.Gated(pod) && len(podspec.ConditionsOf(&pod.Spec)) == 0:
		text = "its barrier was open"
	case !view.Gated(pod):
		text = "its conditions were met"
	case len(held) > 0:
		text = "holds " + strings.Join(shortened(held), ", ")
	case podspec.ServesLocal(&pod.Spec):
		text = "holds nothing"
	default:
		text = "stands by"
	}
	if pod.DeletionTimestamp != nil {
		text += ", is being deleted"
	} else if pod.Status.Phase != corev1.PodRunning {
		text += ", " + string(pod.Status.Phase)
	}
	switch {
	case !view.Gated(pod):
		return text
	case podspec.Leashed(&pod.Spec):
		return text + "\t" + view.AsksItself + ", and shims kill it after the loss of a hold"
	case podspec.ServesLocal(&pod.Spec):
		return text + "\t" + view.AsksItself
	}
	for _, c := range pod.Status.Conditions {
		if c.Type != api.ReadyCondition {
			continue
		}
		ready := "Ready"
		if c.Status != corev1.ConditionTrue {
			ready = "not Ready"
		}
		why := c.Reason + ": " + c.Message
		if name, reason := view.Idle(pod); name != "" {
			why += "; its container " + name + " does not run: " + reason
		}
		return fmt.Sprintf("%s\t%s\t%s", text, ready, why)
	}
	return text + "\tnot Ready\tits agent has not said anything yet"
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

func (e *explainer) eventLines() []string {
	var lines []string
	seen := map[string]bool{}
	for _, event := range e.events {
		// A ReplicaSet repeats a refusal for each new pod, so an equal text is shown once.
		text := fmt.Sprintf("%s/%s: %s: %s", event.InvolvedObject.Kind, event.InvolvedObject.Name, event.Reason,
			withoutPod(event.Message))
		if seen[text] || len(lines) == maxEvents {
			continue
		}
		seen[text] = true
		lines = append(lines, fmt.Sprintf("%s ago\t%s", age(e.now, view.Last(event)), text))
	}
	return lines
}

// refusedPod matches the words of a refusal that differ from pod to pod. A policy's refusal names the
// pod, whose name is random.
var refusedPod = regexp.MustCompile(`^\(combined from similar events\): |pods "[^"]*" is forbidden: `)

// withoutPod returns the message of an Event without the name of the refused pod.
func withoutPod(message string) string {
	return strings.TrimSpace(refusedPod.ReplaceAllString(message, ""))
}

// age returns the time since an instant, as kubectl writes it.
func age(now, at time.Time) string { return duration.HumanDuration(max(0, now.Sub(at))) }
