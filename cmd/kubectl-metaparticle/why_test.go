// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/manifests"
)

func TestExplainCommandShowsWhyContainerDoesNotRun(t *testing.T) {
	p := gatedPod("a", corev1.ConditionFalse, "NoHolder", "nobody holds it")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"},
	}}}
	shown := answer(t, true, "Deployment/biller", together(deployment(claim, claim), leaseOf(""), p)...)
	assert.Contains(t, shown, "a  does not run  not Ready  its container app does not run: ImagePullBackOff; NoHolder: nobody holds it")
}

func TestExplainCommandPromisesNoGateAfterRefusals(t *testing.T) {
	there := together(deployment(claim, claim), leaseOf(""))
	assert.Contains(t, answer(t, true, "Deployment/biller", there...), "biller in shop: no pods; the next are gated\n")
	refused := event("ReplicaSet", "biller-1", "FailedCreate", `admission webhook "pods.metaparticle.io" denied the request: ImageUnreadable`)
	shown := answer(t, true, "Deployment/biller", append(there, refused)...)
	assert.Contains(t, shown, "biller in shop: no pods, because new ones are refused\n  - new pods are refused: ImageUnreadable (60s ago)\n")
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

func TestExplainCommandShowsRepeatedRefusalOnce(t *testing.T) {
	there := together(deployment(claim, claim), leaseOf(""))
	for name, prefix := range map[string]string{"x": "", "y": "", "z": "(combined from similar events): "} {
		refused := event("ReplicaSet", "biller-1", "FailedCreate",
			prefix+`Error creating: pods "biller-1-`+name+`" is forbidden: ValidatingAdmissionPolicy 'metaparticle-gate' denied request: NotInjected`)
		refused.Name = name
		there = append(there, refused)
	}
	shown := answer(t, true, "Deployment/biller", there...)
	assert.Equal(t, 1, strings.Count(shown, "denied request: NotInjected"), shown)
	assert.Contains(t, shown, "ReplicaSet/biller-1: FailedCreate: Error creating: ValidatingAdmissionPolicy 'metaparticle-gate' denied")
}

func TestExplainCommandShowsAnnotationsOfTheJobTemplate(t *testing.T) {
	c := &batchv1.CronJob{ObjectMeta: meta("nightly", nil)}
	c.Spec.JobTemplate.Annotations = map[string]string{api.LockAnnotation: "nightly"}
	c.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	shown := answer(t, true, "CronJob/nightly", c)
	assert.Contains(t, shown, "the template lacks metaparticle.io/lock:")
	assert.Contains(t, shown, "Any change of the CronJob carries it\n", "kubectl cannot restart a CronJob")
	assert.Contains(t, shown, "metaparticle.io/lock=nightly  on the workload, not on its template")
}

func TestExplainCommandNamesAnnotationWithMistypedPrefix(t *testing.T) {
	for _, key := range []string{
		"metaparticle.oi/singleton", "Metaparticle.io/Singleton", "metapartical.io/singleton", "metapraticle.io/singleton",
		"meta-particle.io/singleton", "metaparticles.io/singleton", "metaparticle/singleton",
	} {
		wrong := map[string]string{key: "true"}
		want := "claim nothing: " + key + " has another prefix, and has no effect: did you mean metaparticle.io/singleton?"
		assert.Contains(t, answer(t, true, "Deployment/biller", together(deployment(wrong, nil))...), want)
		assert.Contains(t, answer(t, true, "Deployment/biller", together(deployment(nil, wrong))...), want)
	}
	for _, key := range []string{"example.com/singleton", "meta.example.com/singleton", "metaparticle.oi/other"} {
		other := map[string]string{key: "true"}
		assert.NotContains(t, answer(t, true, "Deployment/biller", together(deployment(other, nil))...), "another prefix")
	}
	policy, err := fs.ReadFile(manifests.Policies, "policies/ineffective.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(policy), "matches('"+nearPrefix.String()+"')", "the API server must warn of the same prefixes")
}

func TestExplainCommandAdvisesNoRestartBeforeOptIn(t *testing.T) {
	shown := answer(t, false, "Deployment/biller", together(deployment(claim, nil), plainPod("a", nil))...)
	assert.Contains(t, shown, "NamespaceNotOptedIn: ")
	assert.NotContains(t, shown, "NotGated: ", "the namespace has no opt-in to which the pods could be older")
}

func TestExplainCommandAdvisesNoClaimThatIsThere(t *testing.T) {
	off := map[string]string{api.SingletonAnnotation: "false"}
	shown := answer(t, true, "Deployment/biller", together(deployment(claim, off), plainPod("a", nil))...)
	assert.Contains(t, shown, "the value in its template counts, and claims nothing\n  - TemplateDiffers: ")
	assert.NotContains(t, shown, "annotate it")
}
