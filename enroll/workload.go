// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
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
// workload or on its template. A workload that another object controls is left out.
func (s store) workloads(ctx context.Context, namespace string) ([]workload, error) {
	var (
		deployments  appsv1.DeploymentList
		statefulSets appsv1.StatefulSetList
		daemonSets   appsv1.DaemonSetList
		cronJobs     batchv1.CronJobList
	)
	for _, list := range []client.ObjectList{&deployments, &statefulSets, &daemonSets, &cronJobs} {
		if err := s.client.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list workloads: %w", err)
		}
	}
	var all []workload
	add := func(object client.Object, group, kind string) {
		w := workload{
			object:   object,
			group:    api.Workload{Group: group, Kind: kind, Name: object.GetName()},
			template: template(object),
			selector: selector(object),
		}
		if metav1.GetControllerOf(object) == nil && annotated(w.effective()) {
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
	return all, nil
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

// madeBy returns the Deployment, StatefulSet or DaemonSet that made a pod, as the text of its
// [api.Workload]; empty for any other pod. The name of a Deployment's ReplicaSet ends in the hash of the
// pod's template.
func madeBy(pod *corev1.Pod) string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return ""
	}
	of := podspec.WorkloadOf(owner)
	if name, ok := strings.CutSuffix(of.Name, "-"+pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]); ok && of.Kind == "ReplicaSet" {
		of.Kind, of.Name = "Deployment", name
	}
	return of.String()
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
