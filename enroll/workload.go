// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// workload is a Deployment, StatefulSet, DaemonSet or CronJob with an annotation of Metaparticle.
// Enroll reads neither ReplicaSets nor Jobs, whether or not they have a controller. Kubernetes
// creates their pods immediately, so the claims of these pods are enough.
type workload struct {
	object   client.Object
	group    api.Workload
	template *corev1.PodTemplateSpec
	// selector selects the workload's pods; it is nil for a CronJob.
	selector *metav1.LabelSelector
}

// effective returns the annotations that the workload's next pods will have.
func (w workload) effective() map[string]string {
	return api.Effective(w.object.GetAnnotations(), w.template.Annotations)
}

// workloads lists the workloads of a namespace that have one of our annotations, on the
// workload or on its template. A workload that another object controls is in the second result, with or
// without an annotation.
func (s store) workloads(ctx context.Context, namespace string) (all []workload, controlled map[api.Workload]client.Object, err error) {
	var (
		deployments  appsv1.DeploymentList
		statefulSets appsv1.StatefulSetList
		daemonSets   appsv1.DaemonSetList
		cronJobs     batchv1.CronJobList
	)
	for _, list := range []client.ObjectList{&deployments, &statefulSets, &daemonSets, &cronJobs} {
		if err := s.client.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, nil, fmt.Errorf("list workloads: %w", err)
		}
	}
	controlled = map[api.Workload]client.Object{}
	add := func(object client.Object, group, kind string) {
		w := workload{
			object:   object,
			group:    api.Workload{Group: group, Kind: kind, Name: object.GetName()},
			template: template(object),
			selector: selector(object),
		}
		switch {
		case metav1.GetControllerOf(object) != nil:
			controlled[w.group] = object
		case annotated(w.effective()):
			all = append(all, w)
		}
	}
	for i := range deployments.Items {
		add(&deployments.Items[i], "apps", "Deployment")
	}
	for i := range statefulSets.Items {
		add(&statefulSets.Items[i], "apps", "StatefulSet")
	}
	for i := range daemonSets.Items {
		add(&daemonSets.Items[i], "apps", "DaemonSet")
	}
	for i := range cronJobs.Items {
		add(&cronJobs.Items[i], "batch", "CronJob")
	}
	return all, controlled, nil
}

func annotated(annotations map[string]string) bool {
	for key := range annotations {
		if strings.HasPrefix(key, api.Prefix) {
			return true
		}
	}
	return false
}

// claiming reports whether the annotations are valid and claim a slot.
func claiming(annotations map[string]string) bool {
	request, err := api.Parse(annotations)
	return err == nil && request.Claims()
}

// meant reports whether a person wanted a claim by the annotations, even if they have a mistake. A pod that
// only waits for conditions runs without a gate.
func meant(annotations map[string]string) bool {
	if _, err := api.Parse(annotations); err == nil {
		return claiming(annotations)
	}
	return slices.ContainsFunc(api.Asking(annotations), func(key string) bool { return key != api.AfterAnnotation })
}

func isAnnotated(object client.Object) bool {
	return annotated(object.GetAnnotations()) || annotated(template(object).Annotations)
}

// template returns the pod template of a workload.
func template(object client.Object) *corev1.PodTemplateSpec {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	default:
		return &corev1.PodTemplateSpec{}
	}
}

// manyReplicas stands for each number of pods above one, of which enroll needs no more.
const manyReplicas = 2

// replicas returns how many pods a workload declares, at most manyReplicas. A DaemonSet has a pod for
// each node, and a CronJob can have several Jobs.
func replicas(object client.Object) int {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return int(min(ptr.Deref(o.Spec.Replicas, 1), manyReplicas))
	case *appsv1.StatefulSet:
		return int(min(ptr.Deref(o.Spec.Replicas, 1), manyReplicas))
	default:
		return manyReplicas
	}
}

// selector returns the selector of a workload's pods, or nil for a CronJob.
func selector(object client.Object) *metav1.LabelSelector {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return o.Spec.Selector
	case *appsv1.StatefulSet:
		return o.Spec.Selector
	case *appsv1.DaemonSet:
		return o.Spec.Selector
	default:
		return nil
	}
}
