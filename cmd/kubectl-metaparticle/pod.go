// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

// errOtherController refuses a pod with a controller, such as a pod copied from a cluster.
var errOtherController = errors.New("inject reads no cluster; ask explain about a pod that runs")

// kinds has the API version of each kind of workload whose annotations the webhook carries to the
// pod template.
var kinds = func() map[string]string {
	all := map[string]string{}
	for _, o := range api.Owners(func(o api.Owner) bool { return o.Carried }) {
		all[o.Kind] = o.APIVersion()
	}
	return all
}()

func (d document) workload() bool { return d.APIVersion != "" && kinds[d.Kind] == d.APIVersion }

func (d document) pod() bool { return d.APIVersion == "v1" && d.Kind == "Pod" }

// shape contains the fields of a workload from which podOf makes a pod. Maps keep the fields
// that this build does not know.
type shape struct {
	Spec struct {
		jobShape    `json:",inline"`
		JobTemplate struct {
			Spec jobShape `json:"spec"`
		} `json:"jobTemplate"`
		VolumeClaimTemplates []struct {
			metav1.ObjectMeta `json:"metadata"`
		} `json:"volumeClaimTemplates"`
	} `json:"spec"`
}

// jobShape has the pod template, and the fields of a Job's spec that bound the number of the Job's
// pods.
type jobShape struct {
	Template    template `json:"template"`
	Parallelism *int32   `json:"parallelism"`
	Completions *int32   `json:"completions"`
}

type template struct {
	Metadata map[string]any `json:"metadata"`
	Spec     map[string]any `json:"spec"`
}

// previewUID stands for the UID of a Job that does not exist yet.
const previewUID = "job-uid"

// owner implements mutate.Owners for a generated pod, whose workload is known.
type owner struct {
	workload api.Workload
	template *corev1.PodSpec
	run      feature.Run
}

// Origin implements mutate.Owners. A manifest has no revision, because only a controller
// numbers revisions.
func (o owner) Origin(context.Context, string, *corev1.Pod) (feature.Origin, error) {
	if o.template == nil {
		return feature.Origin{}, errOtherController
	}
	return feature.Origin{Workload: o.workload, Template: o.template, Run: o.run, Preview: true}, nil
}

// JobUID implements mutate.Owners. The result is empty, because "inject" reads no Job of a cluster.
func (o owner) JobUID(context.Context, string, string) (string, error) { return "", nil }

// podOf returns a pod of the workload, as the API server would receive the pod. The second result
// is the pod's owner.
func podOf(d document, raw []byte) (document, owner, error) {
	var w shape
	if err := json.Unmarshal(raw, &w); err != nil {
		return document{}, owner{}, fmt.Errorf("read %s: %w", d, err)
	}
	of := w.Spec.jobShape
	if d.Kind == "CronJob" {
		of = w.Spec.JobTemplate.Spec
	}
	t := of.Template
	if d.Kind == "StatefulSet" {
		t.claim(w, d.Name)
	}
	made, o, err := t.pod(d)
	if api.BuiltinOwner(d.Kind).Runs {
		o.run = feature.Run{UID: previewUID, AtOnce: feature.PodsAtOnce(of.Parallelism, of.Completions), Completions: of.Completions}
	}
	return made, o, err
}

// madeUp stands for what the API server adds to the field generateName.
const madeUp = "xxxxx"

// pod returns a pod of the template, and the owner of the pod.
func (t template) pod(d document) (document, owner, error) {
	if d.Name == "" {
		d.Name = d.GenerateName + madeUp
	}
	metadata := map[string]any{}
	for _, key := range []string{"labels", "annotations"} {
		if t.Metadata[key] != nil {
			metadata[key] = t.Metadata[key]
		}
	}
	if d.Namespace != "" {
		metadata["namespace"] = d.Namespace
	}
	metadata["generateName"] = d.Name + "-"
	if d.Kind == "StatefulSet" {
		delete(metadata, "generateName")
		metadata["name"] = d.Name + "-0"
	}
	metadata["ownerReferences"] = []any{map[string]any{
		"apiVersion": d.APIVersion, "kind": d.Kind, "name": d.Name, "uid": "unknown", "controller": true,
	}}
	pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": t.Spec}
	made := document{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	made.Name, made.Namespace = d.Name, d.Namespace
	var err error
	if made.raw, err = json.Marshal(pod); err != nil {
		return document{}, owner{}, err
	}
	spec, err := json.Marshal(t.Spec)
	if err != nil {
		return document{}, owner{}, err
	}
	version, err := schema.ParseGroupVersion(d.APIVersion)
	if err != nil {
		return document{}, owner{}, err
	}
	o := owner{workload: api.Workload{Group: version.Group, Kind: d.Kind, Name: d.Name}, template: new(corev1.PodSpec)}
	if above := podspec.Above(d.Kind, &d.ObjectMeta); above != nil {
		o.workload = podspec.WorkloadOf(above)
	}
	if err := json.Unmarshal(spec, o.template); err != nil {
		return document{}, owner{}, fmt.Errorf("read %s: %w", d, mutate.Malformed(err))
	}
	return made, o, nil
}

// claim adds the volumes that the StatefulSet's controller would add.
func (t template) claim(w shape, name string) {
	for _, c := range w.Spec.VolumeClaimTemplates {
		volumes, _ := t.Spec["volumes"].([]any)
		t.Spec["volumes"] = append(volumes, map[string]any{
			"name":                  c.Name,
			"persistentVolumeClaim": map[string]any{"claimName": c.Name + "-" + name + "-0"},
		})
	}
}

// ownerless returns the pod without its owner reference, whose uid is invented.
func ownerless(raw []byte) ([]byte, error) {
	var pod struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       map[string]any `json:"spec"`
	}
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, err
	}
	delete(pod.Metadata, "ownerReferences")
	return json.Marshal(pod)
}

// unfit returns the reason why the pod cannot hold next. The text is empty if the pod can hold
// next. The Leases are those of the pod's slots. A pod with the local API can hold next, because
// its program may bid for the slot.
func unfit(pod corev1.Pod, leases []*coordinationv1.Lease) string {
	said, ok := view.Condition(pod)
	holds := slices.ContainsFunc(leases, func(l *coordinationv1.Lease) bool { return view.HolderOf(l) == view.IdentityOf(pod) })
	switch {
	case !view.Gated(pod):
		return "is not gated"
	case pod.DeletionTimestamp != nil:
		return "is being deleted"
	case holds:
		return "holds already"
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return "has ended"
	case podspec.ServesLocal(&pod.Spec):
		return ""
	case !ok:
		return "does not wait yet: its agent has said nothing"
	case said.Reason == api.ReasonChildRunning:
		return "does not wait: " + said.Message
	}
	for i, c := range pod.Spec.Containers {
		if api.IsShim(c.Command) && !runs(pod.Status.ContainerStatuses, pod.Spec.Containers[i].Name) {
			return fmt.Sprintf("does not wait: its container %s does not run", c.Name)
		}
	}
	return ""
}

// runs reports whether the container runs. If a standby's container runs, the shim in this
// container waits.
func runs(statuses []corev1.ContainerStatus, name string) bool {
	return slices.ContainsFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name && s.State.Running != nil })
}
