// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
)

// workload is what a Deployment, StatefulSet, DaemonSet, ReplicaSet, Job and
// CronJob have in common.
type workload struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		rollout     `json:",inline"`
		Template    corev1.PodTemplateSpec `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

// template is the workload's pod template and the way to it.
func (w *workload) template(kind string) (*corev1.PodTemplateSpec, []any) {
	if kind == "CronJob" {
		return &w.Spec.JobTemplate.Spec.Template, []any{"spec", "jobTemplate", "spec", "template"}
	}
	return &w.Spec.Template, []any{"spec", "template"}
}

// Carry brings the annotations of a workload to its pod template: those that
// are on the workload are added, those that were taken off it since old (nil
// at its creation) are removed, if the template's are the ones that were
// carried. Annotations that only the template has are its own.
//
// The warnings are what its pods would be refused for, as far as the template
// tells. A workload that another one controls is left alone: its controller
// writes its template, and would make new ones for ever.
//
// The warnings depend on the cluster's minor version of Kubernetes 1, which is
// zero if it is not known.
func Carry(kubernetes int, kind string, raw, old []byte) ([]jsonpatch.Operation, Refusals, error) {
	now, before := new(workload), new(workload)
	if err := json.Unmarshal(raw, now); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(old) > 0 {
		if err := json.Unmarshal(old, before); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if metav1.GetControllerOfNoCopy(now) != nil {
		return nil, nil, nil
	}
	template, path := now.template(kind)
	wanted, warnings := merge(now.Annotations, before.Annotations, template.Annotations)
	if kind == "Job" && len(old) > 0 {
		return nil, immutable(wanted, template.Annotations), nil
	}
	d, err := open(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	at := func(key string) []any { return append(slices.Clone(path), "metadata", "annotations", key) }
	for _, key := range slices.Sorted(maps.Keys(template.Annotations)) {
		if _, ok := wanted[key]; !ok {
			d.remove(at(key)...)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if has, ok := template.Annotations[key]; !ok || has != wanted[key] {
			d.set(wanted[key], at(key)...)
		}
	}
	text, err := json.Marshal(d.get(path...))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	warnings = append(warnings, foresee(kind, text, template, wanted, kubernetes)...)
	return d.ops, append(warnings, now.Spec.stalls(kind, wanted, &template.Spec)...), nil
}

// mostUnknown is how many annotations that nobody knows are carried. One is enough to
// have the pods refused; a workload on its way in may have a hundred thousand.
const mostUnknown = 20

// merge is what the template's annotations are to be.
func merge(now, before, template map[string]string) (map[string]string, Refusals) {
	wanted := maps.Clone(template)
	if wanted == nil {
		wanted = map[string]string{}
	}
	for key, was := range before {
		if _, still := now[key]; !still && api.Carried(key) && wanted[key] == was {
			delete(wanted, key)
		}
	}
	var warnings Refusals
	unknown := 0
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if !api.Carried(key) {
			continue
		}
		if !api.Known(key) {
			if unknown++; unknown > mostUnknown {
				continue
			}
		}
		has, ok := template[key]
		if was, had := before[key]; ok && has != now[key] && (!had || was != has) {
			warnings.add(TemplateDiffers, "%s is %q here and %q in the template", key, now[key], has)
			continue
		}
		wanted[key] = now[key]
	}
	return wanted, warnings
}

// immutable warns about what cannot reach the template of a Job that exists.
func immutable(wanted, template map[string]string) Refusals {
	var warnings Refusals
	keys := slices.Concat(slices.Collect(maps.Keys(wanted)), slices.Collect(maps.Keys(template)))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if want, ok := wanted[key]; !ok || want != template[key] {
			warnings.add(JobImmutable, "%s does not reach the pods of this Job", key)
		}
	}
	return warnings
}

// foresee is what the template's pods would be refused for. The text of the
// template is looked at for what this build does not know.
func foresee(kind string, text []byte, template *corev1.PodTemplateSpec, annotations map[string]string, kubernetes int) Refusals {
	var warnings Refusals
	request, err := api.Parse(annotations)
	if mistakes, ok := errors.AsType[api.Mistakes](err); ok {
		for _, m := range mistakes {
			warnings.add(BadAnnotation, "%v", m)
		}
		return warnings
	}
	if !request.Claims() {
		return nil
	}
	pod := &corev1.Pod{Spec: template.Spec}
	if warnings := judgeNumber(pod); len(warnings) > 0 {
		return warnings
	}
	gated, warnings := gatedContainers(pod, request, &template.Spec)
	parts := parts{
		pod: pod, request: request, workload: api.Workload{Group: "apps", Kind: kind},
		gated: gated, inits: gatedInits(pod, request),
	}
	warnings = append(warnings, parts.judge(text, kubernetes)...)
	return append(warnings, judgeToken(&template.Spec, request)...)
}
