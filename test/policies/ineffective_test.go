// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
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
