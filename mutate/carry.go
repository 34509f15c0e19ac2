// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// workload has the fields that Carry reads from a Deployment, StatefulSet, DaemonSet,
// ReplicaSet, Job or CronJob.
type workload struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		rollout  `json:",inline"`
		failures `json:",inline"`
		Template corev1.PodTemplateSpec `json:"template"`
		// ActiveDeadlineSeconds belongs to a Job.
		ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds"`
		// VolumeClaimTemplates belong to a StatefulSet, whose pods then have claims of their own.
		VolumeClaimTemplates []metav1.PartialObjectMetadata `json:"volumeClaimTemplates"`
		JobTemplate          struct {
			Metadata struct {
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
			Spec struct {
				failures              `json:",inline"`
				ActiveDeadlineSeconds *int64                 `json:"activeDeadlineSeconds"`
				Template              corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

// failures returns the rules by which a Job treats failed pods.
func (w *workload) failures(kind string) failures {
	if kind == "CronJob" {
		return w.Spec.JobTemplate.Spec.failures
	}
	return w.Spec.failures
}

// template returns the workload's pod template, and the path to it.
func (w *workload) template(kind string) (*corev1.PodTemplateSpec, []any) {
	if kind == "CronJob" {
		return &w.Spec.JobTemplate.Spec.Template, []any{"spec", "jobTemplate", "spec", "template"}
	}
	return &w.Spec.Template, []any{"spec", "template"}
}

// late warns of a deadline of the Jobs of a workload that includes the time for which their pods wait.
func (w *workload) late(kind string, request api.Request) reason.Refusals {
	switch kind {
	case "Job":
		return feature.WarnOfDeadline("the Job's", w.Spec.ActiveDeadlineSeconds, request)
	case "CronJob":
		return feature.WarnOfDeadline("the Job's", w.Spec.JobTemplate.Spec.ActiveDeadlineSeconds, request)
	}
	return nil
}

// own returns the annotations that Carry brings to the pod template. A CronJob also has the
// annotations of its job template. If both have the same key, the CronJob's value counts, and own
// warns.
func (w *workload) own() (map[string]string, reason.Refusals) {
	if len(w.Spec.JobTemplate.Metadata.Annotations) == 0 {
		return w.Annotations, nil
	}
	all := maps.Clone(w.Spec.JobTemplate.Metadata.Annotations)
	var warnings reason.Refusals
	for _, key := range slices.Sorted(maps.Keys(w.Annotations)) {
		if other, ok := all[key]; ok && other != w.Annotations[key] && api.Known(key) {
			warnings.Add(reason.BadAnnotation, "%s is %q here and %q in the job template: remove one of the two", key, w.Annotations[key], other)
		}
		all[key] = w.Annotations[key]
	}
	return all, warnings
}

// Workload is a workload that is to be created or updated.
type Workload struct {
	Kind, Namespace string
	// Raw is the workload's text. Old is its text before the update, and empty for a new workload.
	Raw, Old []byte
	// Kubernetes is the minor version of the cluster: 34 for Kubernetes 1.34, and zero for an
	// unknown version. The warnings depend on it.
	Kubernetes int
	// Images are the images of the workload's containers. With nil, no image is read.
	Images image.Images
	// AccessModes has the access modes of PersistentVolumeClaims by name, as far as they are known.
	AccessModes map[string][]corev1.PersistentVolumeAccessMode
}

// Carry returns warnings, and the operations that bring the annotations of a workload to its pod
// template. The operations add the workload's annotations. If an update removes an annotation from the
// workload, the operations remove the carried value from the template. An annotation or a value that
// only the template has stays there.
//
// The warnings list the reasons to refuse the pods, as far as the template shows them. They include
// images that nobody can read, but only if the update changes the template and the answer comes before
// the context ends: a person waits. A workload with a controller gets no operation. Its controller would restore the template,
// and Carry would change the template again, for ever. So Carry only warns of annotations that the template
// lacks, as the policy "ineffective" does for the API server. An existing Job gets no operation either,
// because its template cannot change.
func Carry(ctx context.Context, w Workload) ([]jsonpatch.Operation, reason.Refusals, error) {
	now, before := new(workload), new(workload)
	if err := json.Unmarshal(w.Raw, now); err != nil {
		return nil, nil, Malformed(err)
	}
	if len(w.Old) > 0 {
		if err := json.Unmarshal(w.Old, before); err != nil {
			return nil, nil, Malformed(err)
		}
	}
	template, path := now.template(w.Kind)
	own, warnings := now.own()
	if by := metav1.GetControllerOfNoCopy(now); by != nil {
		return nil, unreached(w.Kind+"/"+now.Name, by, own, template.Annotations), nil
	}
	earlier, _ := before.own()
	wanted, differing := merge(own, earlier, template.Annotations)
	warnings = append(warnings, differing...)
	if w.Kind == "Job" && len(w.Old) > 0 {
		return nil, immutable(wanted, template.Annotations), nil
	}
	d, err := patch.Open(w.Raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	annotate(d, append(slices.Clone(path), "metadata", "annotations"), template.Annotations, wanted)
	request, mistakes := read(wanted)
	warnings = append(warnings, mistakes...)
	if was, _ := before.template(w.Kind); len(mistakes) == 0 && len(w.Old) > 0 && !maps.Equal(was.Annotations, wanted) {
		warnings = append(warnings, now.changed(w.Kind, before.Spec.rollout, was.Annotations, request)...)
	}
	// A template that was copied from a gated pod may have the marks of that pod.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: wanted, Labels: template.Labels}, Spec: template.Spec}
	if !request.Claims() && (len(mistakes) == 0 || request.Injects()) {
		if leftovers := feature.JudgeUnclaimed(pod, request); len(leftovers) > 0 {
			return d.Operations(), append(warnings, leftovers...), nil
		}
	}
	if !request.Injects() {
		return d.Operations(), warnings, nil
	}
	images := w.Images
	if was, _ := before.template(w.Kind); len(w.Old) > 0 && maps.Equal(was.Annotations, wanted) && reflect.DeepEqual(was.Spec, template.Spec) {
		images = nil // the update makes no new pods
	}
	foreseen, request := foresee(ctx, feature.Facts{
		Pod: pod, Document: d, Path: path, Request: request, Namespace: w.Namespace,
		Origin: feature.Origin{Workload: api.Workload{Group: "apps", Kind: w.Kind}, Template: &template.Spec}, Kubernetes: w.Kubernetes,
	}, images)
	warnings = append(warnings, foreseen...)
	return d.Operations(), slices.Concat(warnings,
		now.Spec.stalls(w.Kubernetes, w.Kind, request, &template.Spec), now.Spec.hurried(w.Kind, request, &template.Spec),
		now.Spec.fewer(w.Kind, request), now.Spec.alone(w.Kind, request),
		now.apart(w.Kind, request, w.AccessModes), now.addressed(w.Kind, request),
		now.late(w.Kind, request), now.failures(w.Kind).judge(request, pod)), nil
}

// changed returns the warnings about an update that replaces the annotations "was" of the template by
// those of the request.
func (w *workload) changed(kind string, before rollout, was map[string]string, request api.Request) reason.Refusals {
	earlier, err := api.Parse(was)
	if err != nil {
		return nil //nolint:nilerr // no pod ran
	}
	if earlier.Gate == api.GateProgram || request.Gate == api.GateProgram {
		return nil
	}
	return w.Spec.beside(kind, before, exclusive(kind, w.Name, earlier, request), exclusive(kind, w.Name, request, earlier))
}

// annotate makes the annotations at a path equal to the wanted annotations.
func annotate(d *patch.Document, path []any, has, wanted map[string]string) {
	at := func(key string) []any { return append(slices.Clip(path), key) }
	for _, key := range slices.Sorted(maps.Keys(has)) {
		if _, ok := wanted[key]; !ok {
			d.Remove(at(key)...)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if value, ok := has[key]; !ok || value != wanted[key] {
			d.Set(wanted[key], at(key)...)
		}
	}
}

// foresee returns the refusals and warnings that the pods of a template would get, and what the pods
// then ask for.
func foresee(ctx context.Context, template feature.Facts, images image.Images) (reason.Refusals, api.Request) {
	p, refusals := feature.NewPod(template)
	if len(refusals) > 0 {
		return refusals, template.Request
	}
	refusals = p.Judge()
	if images != nil {
		unread, _ := errors.AsType[reason.Refusals](p.LookUp(ctx, images)) // without room in the load, nobody knows
		refusals = append(refusals, unread...)
	}
	return append(refusals, p.Warn()...), p.Request
}

// maxUnknown bounds the unknown annotations that Carry copies. Carry need not copy all of them,
// because one unknown annotation in the template is enough to refuse its pods. The API server
// validates a workload only after the webhook's answer. So the webhook may get a workload with
// a hundred thousand unknown annotations.
const maxUnknown = 20

// exclusive returns the slots without which a pod of the workload does not run its application. The
// argument "other" has the annotations on the other side of the update. A once claim holds back only the
// work of an init container, so its slot counts only beside another once claim. With the gate "readiness"
// the application runs without a slot, so its slots do not count beside a gate that holds the application back.
func exclusive(kind, name string, request, other api.Request) []string {
	_, works := request.Once()
	_, worked := other.Once()
	if works && !worked || request.Gate == api.GateReadiness && other.Gate != api.GateReadiness && other.Claims() {
		return nil
	}
	life, _ := api.SplitSlots(request.Slots(api.Workload{Group: "apps", Kind: kind, Name: name}))
	return life
}

// merge returns the annotations for the template, and warnings. If a person has set an annotation
// to another value in the template than in the workload, the template's value stays, and merge
// warns.
func merge(now, before, template map[string]string) (map[string]string, reason.Refusals) {
	wanted := maps.Clone(template)
	if wanted == nil {
		wanted = map[string]string{}
	}
	for key, was := range before {
		if _, still := now[key]; !still && api.Carried(key) && wanted[key] == was {
			delete(wanted, key)
		}
	}
	var warnings reason.Refusals
	unknown := 0
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if !api.Carried(key) {
			continue
		}
		if !api.Known(key) {
			if unknown++; unknown > maxUnknown {
				continue
			}
		}
		has, ok := template[key]
		if was, had := before[key]; ok && has != now[key] && (!had || was != has) {
			warnings.Add(reason.TemplateDiffers, "%s is %q here and %q in the template", key, now[key], has)
			continue
		}
		wanted[key] = now[key]
	}
	return wanted, warnings
}

// immutable warns of annotations that Carry cannot write into the template of an existing
// Job.
func immutable(wanted, template map[string]string) reason.Refusals {
	var warnings reason.Refusals
	keys := slices.Concat(slices.Collect(maps.Keys(wanted)), slices.Collect(maps.Keys(template)))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		switch want, ok := wanted[key]; {
		case !ok:
			warnings.Add(reason.JobImmutable, "the pods of this Job keep %s", key)
		case want != template[key]:
			warnings.Add(reason.JobImmutable, "%s does not reach the pods of this Job", key)
		}
	}
	return warnings
}

// unreached warns of annotations of a workload that do not reach its pods, because the workload's
// controller writes the template.
func unreached(workload string, by *metav1.OwnerReference, own, template map[string]string) reason.Refusals {
	var warnings reason.Refusals
	for _, key := range slices.Sorted(maps.Keys(own)) {
		if has, ok := template[key]; api.Carried(key) && (!ok || has != own[key]) {
			warnings.Add(reason.NoEffectHere, "%s does not reach the pods of %s, because %s writes its pod template", key, workload, by.Kind+"/"+by.Name)
		}
	}
	return warnings
}
