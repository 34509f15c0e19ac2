// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// deployed returns a request by which a person creates a Deployment, or updates an old one.
func deployed(in *corev1.Namespace, annotations map[string]string, old *appsv1.Deployment) request {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: in.Name, Name: "app", Annotations: annotations}}
	r := request{by: &user.DefaultInfo{Name: "person"}, resource: appsv1.SchemeGroupVersion.WithResource("deployments"), in: in, object: d}
	if old != nil {
		r.old = old
	}
	return r
}

func TestPolicyWarnsOfPrefixesThatAPersonMistypes(t *testing.T) {
	for key, warns := range map[string]bool{
		"metaparticle.oi/singleton": true, "Metaparticle.io/Singleton": true, "metapraticle.io/lock": true, "meta-particle.io/once": true,
		"metaparticle/singleton": true, "metaparticles.io/start-lock": true,
		"example.com/singleton": false, "meta.helm.sh/release-name": false, "metaparticle.oi/other": false, "metallb.io/lock": false,
		"metacontroller.io/gate": false,
	} {
		said := warnings(t, deployed(namespace(shop, true), map[string]string{key: "true"}, nil))
		assert.Equal(t, warns, len(said) == 1, "%s: %v", key, said)
	}
}

// The API server calls no webhook for these mistakes. Without a warning, a person would see nothing,
// and all pods would run the application.
func TestAppliedClaimWithoutEffectCausesWarning(t *testing.T) {
	opted, other := namespace(shop, true), namespace("other", false)
	claim, off := map[string]string{api.SingletonAnnotation: "true"}, map[string]string{api.SingletonAnnotation: "false"}
	misspelt := map[string]string{"metaparticle.oi/singleton": "true"}
	const notOptedIn = "NamespaceNotOptedIn: metaparticle.io/singleton gates no pod, because nothing is injected in namespace other" +
		": kubectl label namespace other metaparticle.io/injection=enabled"
	const prefix = "PrefixMisspelt: metaparticle.oi/singleton has no effect: did you mean metaparticle.io/singleton?"
	const label = "LabelClaimsNothing: metaparticle.io/singleton is a label, and only an annotation has an effect: make the label an annotation"
	template := func(in *corev1.Namespace, labels, annotations map[string]string) request {
		r := deployed(in, nil, nil)
		r.object.(*appsv1.Deployment).Spec.Template.ObjectMeta = metav1.ObjectMeta{Labels: labels, Annotations: annotations}
		return r
	}
	cron := func(in *corev1.Namespace, annotations map[string]string) request {
		c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: in.Name, Name: "app"}}
		c.Spec.JobTemplate.Annotations = annotations
		return request{by: &user.DefaultInfo{Name: "person"}, resource: batchv1.SchemeGroupVersion.WithResource("cronjobs"), in: in, object: c}
	}
	for name, c := range map[string]struct {
		request
		want string
	}{
		"a workload in a namespace without the label":  {deployed(other, claim, nil), notOptedIn},
		"a template in a namespace without the label":  {template(other, nil, claim), notOptedIn},
		"a job template in such a namespace":           {cron(other, claim), notOptedIn},
		"a workload in a namespace that is never ours": {deployed(namespace(metav1.NamespaceSystem, false), claim, nil), "in namespace kube-system: use another namespace"},
		"a misspelt prefix of a workload":              {deployed(opted, misspelt, nil), prefix},
		"a misspelt prefix of a template":              {template(other, nil, misspelt), prefix},
		"a misspelt prefix of a job template":          {cron(opted, misspelt), prefix},
		"a misspelt prefix of a pod": {
			request{by: &user.DefaultInfo{Name: "person"}, resource: podResource, in: opted, object: bare("unheard", misspelt)}, prefix,
		},
		"a label instead of an annotation":      {template(opted, claim, nil), label},
		"a value that claims nothing":           {deployed(other, off, nil), ""},
		"a claim in a namespace with the label": {deployed(opted, claim, nil), ""},
		"no annotation":                         {deployed(other, nil, nil), ""},
	} {
		said := warnings(t, c.request)
		if c.want == "" {
			assert.Empty(t, said, name)
			continue
		}
		assert.Len(t, said, 1, name)
		assert.Contains(t, fmt.Sprint(said), c.want, name)
	}
}

func TestPolicyCountsFurtherAnnotationsOfOneMistake(t *testing.T) {
	said := warnings(t, deployed(namespace(shop, true), map[string]string{"metaparticle.oi/singleton": "true", "metaparticle.oi/readiness": "holder"}, nil))
	assert.Len(t, said, 1)
	assert.Contains(t, fmt.Sprint(said), "? 1 more such annotations")
	labelled := deployed(namespace(shop, true), nil, nil)
	labelled.object.(*appsv1.Deployment).Labels = map[string]string{api.SingletonAnnotation: "true", api.ReadinessAnnotation: "holder"}
	assert.Contains(t, fmt.Sprint(warnings(t, labelled)), "; 1 more such labels")
}

func TestPolicyWarnsAgainOnlyAfterAChange(t *testing.T) {
	claim := map[string]string{api.SingletonAnnotation: "true"}
	other := namespace("other", false)
	old := deployed(other, claim, nil).object.(*appsv1.Deployment)
	assert.Empty(t, warnings(t, deployed(other, claim, old)))
	assert.Len(t, warnings(t, deployed(other, map[string]string{api.LockAnnotation: "a"}, old)), 1)
}

// A policy that exceeds its cost in the API server must neither refuse the workload, nor stop to
// judge usual numbers of annotations.
func TestPolicyWarnsDespiteManyForeignAnnotations(t *testing.T) {
	many := map[string]string{api.SingletonAnnotation: "true"}
	for i := range 1000 {
		many[fmt.Sprintf("metrics.example.com/series-%d", i)] = "true"
	}
	assert.Len(t, warnings(t, deployed(namespace("other", false), many, nil)), 1)
	for i := range 20_000 {
		many[fmt.Sprintf("metap.example.com/%d", i)] = "true"
	}
	assert.Empty(t, refusals(t, deployed(namespace("other", false), many, nil)))
}

// The time of a loop over labels grows with the square of their number: 80,000 labels took half a
// minute. Every user who may create workloads, in any namespace, could cause this.
func TestPolicyIgnoresObjectsWithVeryManyKeys(t *testing.T) {
	other := namespace("other", false)
	labelled := func(n int) request {
		r := deployed(other, map[string]string{api.SingletonAnnotation: "true"}, nil)
		labels := map[string]string{}
		for i := range n {
			labels[fmt.Sprintf("x%d", i)] = ""
		}
		r.object.(*appsv1.Deployment).Labels = labels
		return r
	}
	assert.Len(t, warnings(t, labelled(2000)), 1)
	assert.Empty(t, warnings(t, labelled(2001)))
	inTemplate := labelled(0)
	inTemplate.object.(*appsv1.Deployment).Spec.Template.Labels = labelled(2001).object.(*appsv1.Deployment).Labels
	assert.Empty(t, warnings(t, inTemplate))
	owned := labelled(0)
	owned.object.(*appsv1.Deployment).OwnerReferences = make([]metav1.OwnerReference, 1001)
	assert.Empty(t, warnings(t, owned))
}

// labelled returns a request by which a person creates a namespace, or updates an old one.
func labelled(labels, annotations map[string]string, old *corev1.Namespace) request {
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop, Labels: labels, Annotations: annotations}}
	r := request{by: &user.DefaultInfo{Name: "person"}, resource: corev1.SchemeGroupVersion.WithResource("namespaces"), in: n, object: n}
	if old != nil {
		r.old = old
	}
	return r
}

func TestPolicyWarnsOfNamespacesThatDoNotOptIn(t *testing.T) {
	const remedy = "kubectl label --overwrite namespace shop metaparticle.io/injection=enabled"
	for name, c := range map[string]struct {
		labels, annotations map[string]string
		said                string
	}{
		"the value true":         {map[string]string{api.InjectionLabel: "true"}, nil, "InjectionNotEnabled: metaparticle.io/injection=true has no effect, because only the value enabled opts a namespace in: " + remedy},
		"a capital letter":       {map[string]string{api.InjectionLabel: "Enabled"}, nil, "metaparticle.io/injection=Enabled has no effect"},
		"no value":               {map[string]string{api.InjectionLabel: ""}, nil, "metaparticle.io/injection= has no effect"},
		"an annotation":          {nil, map[string]string{api.InjectionLabel: "enabled"}, "metaparticle.io/injection has no effect on a namespace, which opts in by a label alone"},
		"a claim":                {map[string]string{api.InjectionLabel: "enabled"}, map[string]string{api.SingletonAnnotation: "true"}, "metaparticle.io/singleton has no effect on a namespace"},
		"another key":            {map[string]string{api.InjectAnnotation: "true"}, nil, "metaparticle.io/inject has no effect on a namespace"},
		"a misspelt prefix":      {map[string]string{"metaparticle.oi/injection": "enabled"}, nil, "metaparticle.oi/injection has no effect on a namespace"},
		"the value enabled":      {map[string]string{api.InjectionLabel: api.InjectionEnabled}, nil, ""},
		"a deliberate opt-out":   {map[string]string{api.InjectionLabel: "disabled"}, nil, ""},
		"labels of other people": {map[string]string{"istio-injection": "enabled", "metallb.io/injection": "x", "meta.helm.sh/a": "b"}, map[string]string{"me": ""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := labelled(c.labels, c.annotations, nil)
			assert.Empty(t, refusals(t, r))
			said := warnings(t, r)
			if c.said == "" {
				assert.Empty(t, said)
				return
			}
			assert.Len(t, said, 1)
			assert.Contains(t, fmt.Sprint(said), c.said)
			assert.Empty(t, warnings(t, labelled(c.labels, c.annotations, r.object.(*corev1.Namespace))), "nothing has changed")
		})
	}
	many := map[string]string{api.InjectionLabel: "true"}
	for i := range 20_000 {
		many[fmt.Sprintf("metap%d", i)] = ""
	}
	assert.Empty(t, refusals(t, labelled(many, nil, nil)))
	assert.Empty(t, warnings(t, labelled(many, nil, nil)))
}
