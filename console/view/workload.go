// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// FailedCreate is the reason of a controller's Event about a pod that the API server refused, and of
// the condition ReplicaFailure.
const FailedCreate = "FailedCreate"

// mostWorkloads bounds the workloads that people see of one slot. A tenant can make thousands of
// workloads that claim one lock.
const mostWorkloads = 16

// crew has what the controller of a workload reports about its pods.
type crew struct {
	namespace string
	// of is the workload whose slots the pods claim, and made the object that made the pods, as Kind/name:
	// a Job of a CronJob, or the Deployment of a Revision of Knative.
	of    api.Workload
	made  string
	slots []string
	// pods is the number of pods that have neither ended nor are being deleted. The field "lacks"
	// reports that there are fewer than the workload wants.
	pods  int
	lacks bool
	// gated is the number of those pods that have a gate.
	gated int
	// refused is the reason why the API server refuses pods; empty if it refuses none.
	refused string
	// notCarried reports that the pod template lacks the claim.
	notCarried bool
	uid        types.UID
}

// Annotations returns the annotations of the workload that a controller of Kubernetes makes pods from,
// and those of its pod template.
func Annotations(workload client.Object) (own, template map[string]string) {
	switch o := workload.(type) {
	case *appsv1.Deployment:
		return o.Annotations, o.Spec.Template.Annotations
	case *appsv1.StatefulSet:
		return o.Annotations, o.Spec.Template.Annotations
	case *appsv1.DaemonSet:
		return o.Annotations, o.Spec.Template.Annotations
	case *batchv1.Job:
		return o.Annotations, o.Spec.Template.Annotations
	case *batchv1.CronJob:
		return api.Effective(o.Annotations, o.Spec.JobTemplate.Annotations), o.Spec.JobTemplate.Spec.Template.Annotations
	}
	return nil, nil
}

// crewOf returns the crew of a workload. The second result is false if the workload claims no slot.
func crewOf(o client.Object) (crew, bool) {
	own, template := Annotations(o)
	c := crew{namespace: o.GetNamespace(), of: api.Workload{Group: "apps", Name: o.GetName()}, uid: o.GetUID()}
	switch o := o.(type) {
	case *appsv1.Deployment:
		c.of.Kind, c.pods, c.lacks = "Deployment", int(o.Status.Replicas), true
		for _, condition := range o.Status.Conditions {
			if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue && condition.Reason == FailedCreate {
				c.refused = condition.Message
			}
		}
	case *appsv1.StatefulSet:
		c.of.Kind, c.pods = "StatefulSet", int(o.Status.Replicas)
		c.lacks = o.Status.Replicas < ptr.Deref(o.Spec.Replicas, 1)
	case *appsv1.DaemonSet:
		c.of.Kind, c.pods = "DaemonSet", int(o.Status.CurrentNumberScheduled)
		c.lacks = o.Status.CurrentNumberScheduled < o.Status.DesiredNumberScheduled
	case *batchv1.Job:
		c.of.Group, c.of.Kind, c.pods = "batch", "Job", int(o.Status.Active)
		c.lacks = o.Status.Active == 0 && o.Status.CompletionTime == nil && !ptr.Deref(o.Spec.Suspend, false)
	case *batchv1.CronJob:
		c.of.Group, c.of.Kind = "batch", "CronJob" // its Jobs count their pods
	}
	kind, above := c.of.Kind, podspec.Above(c.of.Kind, o)
	if (above != nil || metav1.GetControllerOf(o) != nil) && api.Asks(template) {
		own = nil // the webhook carries nothing from a controlled workload to its template
	}
	c.made = kind + "/" + c.of.Name
	if above != nil {
		c.of = podspec.WorkloadOf(above)
	}
	// Nobody can change the template of a Job, so only its pods count.
	c.notCarried = kind != "Job" && !api.Asks(template)
	effective := api.Effective(own, template)
	request, err := api.Parse(effective)
	switch {
	case !c.of.Valid() || err == nil && request.OptOut:
		return c, false
	case err != nil:
		for _, key := range api.Asking(effective) {
			c.slots = append(c.slots, api.Shortened(key, MaxWord))
		}
		c.slots = c.slots[:min(len(c.slots), MostMistakes)]
	default:
		c.slots = request.Slots(c.of)
	}
	return c, len(c.slots) > 0
}

// MostMistakes bounds the annotations with a mistake that people see of one workload.
const MostMistakes = 4

// workloadsOf returns, as Kind/name, the pod's controller, and the Deployment that can be above it: the
// names of its ReplicaSets end in a part that it has added.
func workloadsOf(pod *corev1.Pod) (all []string) {
	by := metav1.GetControllerOf(pod)
	if by == nil {
		return nil
	}
	all = []string{by.Kind + "/" + by.Name}
	if i := strings.LastIndexByte(by.Name, '-'); by.Kind == "ReplicaSet" && i > 0 {
		all = append(all, "Deployment/"+by.Name[:i])
	}
	return all
}

// man adds to each slot the workloads whose pods run without a gate, or would, or are refused. A controller
// counts its pods, so ungated pods need not be read: they are those that are not among the gated ones.
func (f found) man(o State, wanted func(slot string) bool) {
	gated := map[string]int{}
	for _, pod := range o.Pods {
		if pod.Labels[api.GatedLabel] != api.Gated || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, of := range workloadsOf(pod) {
			gated[pod.Namespace+"/"+of]++
		}
	}
	refused := map[types.UID]string{}
	for _, e := range o.Events {
		if e.Reason == FailedCreate {
			refused[e.InvolvedObject.UID] = e.Message
		}
	}
	crews := map[string]*crew{}
	for _, w := range o.Workloads {
		c, claims := crewOf(w)
		if !claims {
			continue
		}
		if c.refused == "" && c.lacks {
			c.refused = refused[c.uid]
		}
		key := c.namespace + "/" + c.of.Kind + "/" + c.of.Name
		c.gated = gated[c.namespace+"/"+c.made]
		if before := crews[key]; before != nil { // several Jobs of a CronJob, or versions of Knative
			before.pods += c.pods
			before.gated += c.gated
			before.refused = max(before.refused, c.refused)
			before.notCarried = before.notCarried || c.notCarried
			continue
		}
		crews[key] = &c
	}
	missing := map[string]int{}
	for _, key := range slices.Sorted(maps.Keys(crews)) {
		c := crews[key]
		bare := max(0, c.pods-c.gated)
		if bare == 0 && c.refused == "" && !c.notCarried {
			continue
		}
		for _, slot := range c.slots {
			s := f[types.NamespacedName{Namespace: c.namespace, Name: slot}]
			if s == nil && wanted(slot) && missing[c.namespace] < mostMissing {
				missing[c.namespace]++
				s = f.at(c.namespace, slot)
			}
			if s != nil && len(s.Gaps) < mostWorkloads {
				s.Gaps = append(s.Gaps, Gap{Workload: c.of.String(), Ungated: bare, Refused: api.Shortened(c.refused, MaxMessage), NotCarried: c.notCarried})
			}
		}
	}
}
