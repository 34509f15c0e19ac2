// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// runs are the kinds of custom objects that are made for one run, mostly under a new name, and control
// their pods themselves.
var runs = []schema.GroupKind{
	{Group: "argoproj.io", Kind: "Workflow"},
	{Group: "tekton.dev", Kind: "TaskRun"},
	{Group: "actions.github.com", Kind: "EphemeralRunner"},
}

// hooks are the annotations by which a tool runs a Job at each of its own runs.
var hooks = []string{"helm.sh/hook", "argocd.argoproj.io/hook"}

// dated matches the part of a name that tells a day or an instant.
var dated = regexp.MustCompile(`(^|[-.])(20\d\d-\d\d-\d\d|\d{8,})($|[-.tT])`)

// hashed matches a part of a name that can be the hash of a commit or an image.
var hashed = regexp.MustCompile(`^[0-9a-f]{7,64}$`)

// Apart tells why other pods may have to compete with those of an object, though nothing is above it:
// with each run its name is another one, or it was made from a CronJob that it does not name. The text is
// empty if nothing says so.
func Apart(kind string, object metav1.ObjectMeta) string {
	hook := ""
	for _, key := range hooks {
		if _, ok := object.Annotations[key]; ok {
			hook = key
		}
	}
	_, byHand := object.Annotations[api.InstantiateAnnotation]
	parts := strings.FieldsFunc(object.Name, func(r rune) bool { return r == '-' || r == '.' })
	switch {
	case kind == "Job" && byHand:
		return "the Job has " + api.InstantiateAnnotation + ", and names no CronJob as its owner"
	case object.GenerateName != "":
		return "the " + kind + " has generateName, so each one that is made has another name and a slot of its own"
	case kind != "Job" || len(parts) == 0:
		return ""
	case hook != "" && strings.Trim(parts[len(parts)-1], "0123456789") == "":
		return "the Job is a hook (" + hook + "), and its name ends in a number: if that is new in each run, so is its slot"
	case dated.MatchString(object.Name):
		return "the Job's name has a date or a time: if that is new in each run, so is its slot"
	case slices.ContainsFunc(parts, isHash):
		return "the Job's name has the hash of a version: if that is new in each run, so is its slot"
	}
	return ""
}

// isHash reports whether a part of a name looks like a hash: with letters and digits, for a word has no digits.
func isHash(part string) bool {
	return hashed.MatchString(part) && strings.ContainsAny(part, "0123456789") && strings.ContainsAny(part, "abcdef")
}

// OwnSlot reports whether pods with the request compete only within their workload. A lock beside the
// claim excludes whatever other pods a person has in mind.
func OwnSlot(request api.Request) bool {
	_, own := request.Within(api.ScopeWorkload)
	return own && !slices.ContainsFunc(request.Claimed, func(c api.Claim) bool { return c.Kind == api.Lock })
}

// warnOfOwnSlot warns if the pod may have to compete for another workload's slot, and no owner reference
// tells which one.
func warnOfOwnSlot(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	if !OwnSlot(p.Request) || p.isTemplate() {
		return nil
	}
	of := p.Workload
	bare := of == api.Workload{Kind: "Pod", Name: p.Name}
	switch {
	case p.Apart != "":
		warnings.Add(reason.OwnSlot, "%s", p.Apart)
	case bare && len(p.OwnerReferences) > 0:
		warnings.Add(reason.OwnSlot, "no owner of the pod is its controller, as %s %q is not", p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name)
	case bare:
		warnings.Add(reason.OwnSlot, "the pod has no controller, so it excludes only a pod of the same name")
	case of.Group == "" && of.Kind == "Pod", slices.Contains(runs, schema.GroupKind{Group: of.Group, Kind: of.Kind}):
		warnings.Add(reason.OwnSlot, "only the pods of %s exclude each other, and each run has another %s", of.String(), of.Kind)
	}
	return warnings
}
