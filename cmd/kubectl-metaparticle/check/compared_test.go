// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCheckCommandReportsPoliciesWithChangedMatchConstraints(t *testing.T) {
	for name, change := range map[string]func(*admissionv1.ValidatingAdmissionPolicy){
		"namespaces": func(p *admissionv1.ValidatingAdmissionPolicy) {
			p.Spec.MatchConstraints.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "where"}}
		},
		"rules": func(p *admissionv1.ValidatingAdmissionPolicy) {
			p.Spec.MatchConstraints.ResourceRules[0].Operations = []admissionv1.OperationType{admissionv1.Connect}
		},
		"excluded": func(p *admissionv1.ValidatingAdmissionPolicy) {
			p.Spec.MatchConstraints.ExcludeResourceRules = p.Spec.MatchConstraints.ResourceRules
		},
	} {
		s := healthy(t)
		for i := range s.policies {
			change(&s.policies[i])
		}
		f, err := s.cluster().policies(t.Context())
		require.NoError(t, err)
		assert.NotEqual(t, OK, f.Result, "%s: %s", name, f.Says)
	}
}

func TestCheckCommandReportsChangedWebhookServerOrRules(t *testing.T) {
	for name, change := range map[string]func(*admissionv1.MutatingWebhook){
		"another server": func(w *admissionv1.MutatingWebhook) {
			w.ClientConfig.Service, w.ClientConfig.URL = nil, new("https://evil.example/pods")
		},
		"no namespace": func(w *admissionv1.MutatingWebhook) {
			w.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "where"}}
		},
		"more rights": func(w *admissionv1.MutatingWebhook) {
			w.Rules[0].APIGroups, w.Rules[0].Resources = []string{"*"}, []string{"*"}
		},
	} {
		s := healthy(t)
		for i := range s.webhooks.Webhooks {
			change(&s.webhooks.Webhooks[i])
		}
		f, err := s.cluster().configuration(t.Context())
		require.NoError(t, err)
		assert.NotEqual(t, OK, f.Result, "%s: %s", name, f.Says)
	}
}
