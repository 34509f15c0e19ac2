// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// The API server calls no webhook for these mistakes. Without a warning, a person would see nothing,
// and all pods would run the application.
func TestAppliedClaimWithoutEffectCausesWarning(t *testing.T) {
	t.Parallel()
	opted := space.New(t)
	other := space.New(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	claim, off := map[string]string{api.SingletonAnnotation: "true"}, map[string]string{api.SingletonAnnotation: "false"}
	misspelt := map[string]string{"metaparticle.oi/singleton": "true"}
	notOptedIn := func(s *space.Space) string {
		return "NamespaceNotOptedIn: metaparticle.io/singleton gates no pod, because nothing is injected in namespace " + s.Namespace +
			": kubectl label namespace " + s.Namespace + " metaparticle.io/injection=enabled"
	}
	const prefix = "PrefixMisspelt: metaparticle.oi/singleton has no effect: did you mean metaparticle.io/singleton?"
	const label = "LabelClaimsNothing: metaparticle.io/singleton is a label, and only an annotation has an effect: make the label an annotation"
	deployment := func(s *space.Space, annotations, template map[string]string) *appsv1.Deployment {
		d := app.Deployment(s, app.App{Name: "unheard", Replicas: 1, Template: template})
		d.Annotations = annotations
		return d
	}
	cron := func(s *space.Space, annotations map[string]string) *batchv1.CronJob {
		c := app.CronJob(s, app.App{Name: "unheard", Replicas: 1})
		c.Spec.JobTemplate.Annotations = annotations
		return c
	}
	system := deployment(other, claim, nil)
	system.Namespace = metav1.NamespaceSystem
	labelled := deployment(opted, nil, nil)
	labelled.Spec.Template.Labels[api.SingletonAnnotation] = "true"
	for name, c := range map[string]struct {
		object metav1.Object
		want   string
	}{
		"a workload in a namespace without the label":  {deployment(other, claim, nil), notOptedIn(other)},
		"a template in a namespace without the label":  {deployment(other, nil, claim), notOptedIn(other)},
		"a job template in such a namespace":           {cron(other, claim), notOptedIn(other)},
		"a workload in a namespace that is never ours": {system, "in namespace kube-system: use another namespace"},
		"a misspelt prefix of a workload":              {deployment(opted, misspelt, nil), prefix},
		"a misspelt prefix of a template":              {deployment(other, nil, misspelt), prefix},
		"a misspelt prefix of a job template":          {cron(opted, misspelt), prefix},
		"a misspelt prefix of a pod":                   {app.Bare(opted, "unheard", misspelt), prefix},
		"a label instead of an annotation":             {labelled, label},
		"a value that claims nothing":                  {deployment(other, off, nil), ""},
		"a claim in a namespace with the label":        {deployment(opted, claim, nil), ""},
		"no annotation":                                {deployment(other, nil, nil), ""},
	} {
		said := kubectl.Must(opted, kubectl.Manifest(opted, c.object), "apply", "--dry-run=server", "--namespace", c.object.GetNamespace(), "-f", "-")
		if c.want == "" {
			assert.NotContains(t, said, "Warning", name)
			continue
		}
		assert.Contains(t, said, c.want, name)
	}
	kubectl.Must(other, kubectl.Manifest(other, app.Deployment(other, app.App{Name: "later", Replicas: 1})), "apply", "-f", "-")
	assert.Contains(t, kubectl.Must(other, "", "annotate", "deployment/later", api.SingletonAnnotation+"=true"), notOptedIn(other))
	assert.NotContains(t, kubectl.Must(other, "", "scale", "deployment/later", "--replicas=0"), "Warning")
}
