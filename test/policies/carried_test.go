// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// The Jobs of a CronJob have a controller, so the policy judges only the CronJob.
func TestCarriedPolicyJudgesJobTemplatesOfCronJobs(t *testing.T) {
	job := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly", Namespace: shop}}
	job.Spec.JobTemplate.Annotations = map[string]string{"metaparticle.io/lock": "nightly"}
	create := request{
		by: &user.DefaultInfo{Name: "person"}, resource: batchv1.SchemeGroupVersion.WithResource("cronjobs"), in: namespace(shop, true), object: job,
	}
	assert.NotEmpty(t, refusals(t, create))
	owner := metav1.OwnerReference{APIVersion: "batch/v1", Kind: "CronJob", Name: "nightly", UID: "u", Controller: new(true)}
	made := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "nightly-1", Namespace: shop, Annotations: job.Spec.JobTemplate.Annotations, OwnerReferences: []metav1.OwnerReference{owner}}}
	assert.Empty(t, refusals(t, request{by: create.by, resource: batchv1.SchemeGroupVersion.WithResource("jobs"), in: create.in, object: made}),
		"the Job of the CronJob is admitted, so its pods run without a gate")
}

func TestCarriedPolicyComparesJobTemplateAndPodTemplate(t *testing.T) {
	cron := func(own, job, template map[string]string) *batchv1.CronJob {
		c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly", Namespace: shop, Annotations: own}}
		c.Spec.JobTemplate.Annotations, c.Spec.JobTemplate.Spec.Template.Annotations = job, template
		return c
	}
	a, b, none := map[string]string{"metaparticle.io/lock": "a"}, map[string]string{"metaparticle.io/lock": "b"}, map[string]string(nil)
	for _, c := range []struct {
		what     string
		old, now *batchv1.CronJob
		refused  bool
	}{
		{"carried from the job template", nil, cron(none, a, a), false},
		{"carried from the CronJob", nil, cron(a, none, a), false},
		{"the CronJob's value counts", nil, cron(a, b, a), false},
		{"the template's own value stays", nil, cron(none, a, b), false},
		{"not carried", nil, cron(none, a, none), true},
		{"not carried, although the CronJob has another key", nil, cron(map[string]string{"metaparticle.io/wait-at-most": "5m"}, a, map[string]string{"metaparticle.io/wait-at-most": "5m"}), true},
		{"changed, not carried", cron(none, a, a), cron(none, b, a), true},
		{"changed and carried", cron(none, a, a), cron(none, b, b), false},
		{"removed and carried", cron(none, a, a), cron(none, none, none), false},
		{"removed, not carried", cron(none, a, a), cron(none, none, a), true},
		{"moved to the CronJob", cron(none, a, a), cron(a, none, a), false},
	} {
		r := request{by: &user.DefaultInfo{Name: "person"}, resource: batchv1.SchemeGroupVersion.WithResource("cronjobs"), in: namespace(shop, true), object: c.now}
		if c.old != nil {
			r.old = c.old
		}
		if refused := refusals(t, r); c.refused {
			assert.Len(t, refused, 1, c.what)
			assert.Contains(t, strings.Join(refused, ""), "NotCarried: ", c.what)
		} else {
			assert.Empty(t, refused, c.what)
		}
	}
	deployment := func(own, template map[string]string) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: shop, Annotations: own}}
		d.Spec.Template.Annotations = template
		return d
	}
	for _, c := range []struct {
		old, now *appsv1.Deployment
		refused  int
	}{
		{nil, deployment(a, a), 0}, {nil, deployment(a, none), 1}, {deployment(a, a), deployment(none, a), 1}, {deployment(a, a), deployment(none, none), 0},
		{deployment(a, a), deployment(b, a), 1}, {deployment(a, b), deployment(a, b), 0},
	} {
		r := request{by: &user.DefaultInfo{Name: "person"}, resource: appsv1.SchemeGroupVersion.WithResource("deployments"), in: namespace(shop, true), object: c.now}
		if c.old != nil {
			r.old = c.old
		}
		assert.Len(t, refusals(t, r), c.refused)
	}
}
