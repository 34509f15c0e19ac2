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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// workload is what enroll needs to know of a Deployment, StatefulSet,
// DaemonSet or CronJob that claims. ReplicaSets and Jobs of nobody have their
// pods as soon as they are there; those pods are enough.
type workload struct {
	object   client.Object
	group    api.Workload
	template *corev1.PodTemplateSpec
	// selector of its pods; nil for a CronJob.
	selector *metav1.LabelSelector
}

// effective are the annotations that its next pods will have.
func (w workload) effective() map[string]string {
	return api.Effective(w.object.GetAnnotations(), w.template.Annotations)
}

// workloads lists those of a namespace that have an annotation of ours, on
// themselves or on their template, and no controller above them.
func (r *Reconciler) workloads(ctx context.Context, namespace string) ([]workload, error) {
	var (
		deployments  appsv1.DeploymentList
		statefulSets appsv1.StatefulSetList
		daemonSets   appsv1.DaemonSetList
		cronJobs     batchv1.CronJobList
	)
	for _, list := range []client.ObjectList{&deployments, &statefulSets, &daemonSets, &cronJobs} {
		if err := r.Client.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
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

// claiming: the annotations ask for a slot, and nothing is wrong with them.
func claiming(annotations map[string]string) bool {
	request, err := api.Parse(annotations)
	return err == nil && request.Claims()
}
