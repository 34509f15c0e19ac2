// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestExplainCommandShowsWhyContainerDoesNotRun(t *testing.T) {
	p := gatedPod("a", corev1.ConditionFalse, "NoHolder", "nobody holds it")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"},
	}}}
	shown := answer(t, true, "Deployment/biller", together(deployment(claim, claim), leaseOf(""), p)...)
	assert.Contains(t, shown, "NoHolder: nobody holds it; its container app does not run: ImagePullBackOff")
}

func TestExplainCommandPromisesNoGateAfterRefusals(t *testing.T) {
	there := together(deployment(claim, claim), leaseOf(""))
	assert.Contains(t, answer(t, true, "Deployment/biller", there...), "biller in shop: no pods; the next are gated\n")
	refused := event("ReplicaSet", "biller-1", "FailedCreate", `admission webhook "pods.metaparticle.io" denied the request: ImageUnreadable`)
	shown := answer(t, true, "Deployment/biller", append(there, refused)...)
	assert.Contains(t, shown, "biller in shop: no pods; the API server has refused pods, as the events tell\n")
}

func TestExplainCommandNamesLabelInPlaceOfAnnotation(t *testing.T) {
	const want = "it and its template claim nothing: metaparticle.io/singleton is a label there, and only an annotation counts"
	for name, change := range map[string]func(*appsv1.Deployment){
		"workload": func(d *appsv1.Deployment) { d.Labels = claim },
		"template": func(d *appsv1.Deployment) { d.Spec.Template.Labels = claim },
	} {
		there := deployment(nil, nil)
		change(there[0].(*appsv1.Deployment))
		assert.Contains(t, answer(t, true, "Deployment/biller", there...), want, name)
	}
	marked := plainPod("a", nil)
	marked.Labels = map[string]string{api.GatedLabel: api.Gated}
	shown := answer(t, true, "Deployment/biller", together(deployment(nil, nil), marked)...)
	assert.NotContains(t, shown, "is a label there", "the webhook writes this label")
}
