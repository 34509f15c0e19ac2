// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

func named(name, value string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name + "-uid"), Annotations: map[string]string{api.SingletonAnnotation: value}}
}

func deployed(name, value string, pods int32, conditions ...appsv1.DeploymentCondition) client.Object {
	d := &appsv1.Deployment{ObjectMeta: named(name, value), Status: appsv1.DeploymentStatus{Replicas: pods, Conditions: conditions}}
	d.Spec.Template.Annotations = d.Annotations
	return d
}

// bare returns the workload without a claim in its template.
func bare(d client.Object, key string) client.Object {
	d.SetAnnotations(map[string]string{key: "true"})
	switch d := d.(type) {
	case *appsv1.Deployment:
		d.Spec.Template.Annotations = nil
	case *appsv1.StatefulSet:
		d.Spec.Template.Annotations = nil
	}
	return d
}

func by(kind, name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, Controller: new(true)}}
	}
}

// knatives returns the Deployment, with one pod, of a Revision of the Knative Service "s".
func knatives(revision string) client.Object {
	d := deployed(revision, "true", 1).(*appsv1.Deployment)
	d.Labels, d.Spec.Template.Annotations = map[string]string{"serving.knative.dev/service": "s"}, d.Annotations
	d.OwnerReferences = []metav1.OwnerReference{{APIVersion: "serving.knative.dev/v1", Kind: "Revision", Name: revision, Controller: new(true)}}
	return d
}

func TestUngatedAndRefusedPodsNeedAttention(t *testing.T) {
	const web = "singleton.deployment.web"
	serving := map[string]string{api.ServingAnnotation: noon.Format("2006-01-02T15:04:05Z07:00")}
	held := []*coordinationv1.Lease{lease(web, "a", serving)}
	holder := gated("a", web, by("ReplicaSet", "web-7d4c"))
	failure := appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: FailedCreate, Message: "quota"}
	refusal := func(of string) *corev1.Event {
		return &corev1.Event{Reason: FailedCreate, Message: "denied", InvolvedObject: corev1.ObjectReference{UID: types.UID(of + "-uid")}}
	}
	job := func(name, owner string, active int32) client.Object {
		j := &batchv1.Job{ObjectMeta: named(name, ""), Status: batchv1.JobStatus{Active: active}}
		j.Annotations, j.Spec.Template.Annotations = nil, j.Annotations
		j.Spec.Template.Annotations = map[string]string{api.SingletonAnnotation: "true"}
		if owner != "" {
			j.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "CronJob", Name: owner, Controller: new(true)}}
		}
		return j
	}
	set := &appsv1.StatefulSet{ObjectMeta: named("db", "true"), Spec: appsv1.StatefulSetSpec{Replicas: new(int32(2))}, Status: appsv1.StatefulSetStatus{Replicas: 1}}
	set.Spec.Template.Annotations = set.Annotations
	operated := set.DeepCopy()
	operated.OwnerReferences = []metav1.OwnerReference{{APIVersion: "monitoring.example/v1", Kind: "Prometheus", Name: "main", Controller: new(true)}}
	nightly := &batchv1.CronJob{ObjectMeta: named("tue", "true")}
	ownClaim := job("tue-1", "tue", 1)
	ownClaim.SetAnnotations(map[string]string{api.SingletonAnnotation: "true"})
	ownClaim.(*batchv1.Job).Spec.Template.Annotations = nil
	agents := &appsv1.DaemonSet{ObjectMeta: named("node", "true"), Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 3, CurrentNumberScheduled: 3}}
	agents.Spec.Template.Annotations = agents.Annotations
	const dbs = "singleton.statefulset.db singleton missing"
	for name, c := range map[string]struct {
		state State
		want  []string
	}{
		"all pods are gated": {State{Leases: held, Pods: []*corev1.Pod{holder}, Workloads: []client.Object{deployed("web", "true", 1)}}, []string{web + " singleton held by a"}},
		"no pod is gated": {State{Leases: []*coordinationv1.Lease{lease(web, "", nil)}, Workloads: []client.Object{deployed("web", "true", 2)}},
			[]string{web + " singleton free; unhealthy; Deployment/web: 2 ungated"}},
		"no Lease yet": {State{Workloads: []client.Object{deployed("web", "true", 2)}}, []string{web + " singleton missing; unhealthy; Deployment/web: 2 ungated"}},
		"beside a holder": {State{Leases: held, Pods: []*corev1.Pod{holder}, Workloads: []client.Object{deployed("web", "true", 2)}},
			[]string{web + " singleton held by a; unhealthy; Deployment/web: 1 ungated"}},
		"new pods are refused": {State{Leases: held, Pods: []*corev1.Pod{holder}, Workloads: []client.Object{deployed("web", "true", 1, failure)}},
			[]string{web + " singleton held by a; unhealthy; Deployment/web: 0 ungated: quota"}},
		"a paused slot": {State{Leases: []*coordinationv1.Lease{lease(web, "", map[string]string{api.PausedAnnotation: "stop"})}, Workloads: []client.Object{deployed("web", "true", 1)}},
			[]string{web + " singleton free; unhealthy; Deployment/web: 1 ungated"}},
		"a workload without pods":        {State{Workloads: []client.Object{deployed("web", "true", 0)}}, nil},
		"a workload that claims nothing": {State{Workloads: []client.Object{deployed("web", "false", 2)}}, nil},
		"a claim with a mistake":         {State{Workloads: []client.Object{deployed("web", "?", 2)}}, []string{"metaparticle.io/singleton mistake free; unhealthy; Deployment/web: 2 ungated"}},
		"refused pods of a mistake":      {State{Workloads: []client.Object{deployed("web", "?", 0, failure)}}, []string{"metaparticle.io/singleton mistake free; unhealthy; Deployment/web: 0 ungated: quota"}},
		"a misspelt claim":               {State{Workloads: []client.Object{bare(deployed("web", "", 2), api.Prefix+"singelton"), bare(deployed("api", "", 1), api.Prefix+"singelton")}}, []string{"metaparticle.io/singelton mistake free; unhealthy; Deployment/api: 1 ungated, not carried; Deployment/web: 2 ungated, not carried"}},
		"a template without the claim":   {State{Leases: []*coordinationv1.Lease{lease(web, "", nil)}, Workloads: []client.Object{bare(deployed("web", "", 0), api.SingletonAnnotation)}}, []string{web + " singleton free; unhealthy; Deployment/web: 0 ungated, not carried"}},
		"a CronJob without the claim":    {State{Workloads: []client.Object{nightly}}, []string{"singleton.cronjob.tue singleton missing; unhealthy; CronJob/tue: 0 ungated, not carried"}},
		"a Job from such a CronJob":      {State{Workloads: []client.Object{ownClaim}}, []string{"singleton.cronjob.tue singleton missing; unhealthy; CronJob/tue: 1 ungated"}},
		"an operator's StatefulSet":      {State{Workloads: []client.Object{bare(operated, api.SingletonAnnotation)}}, []string{dbs + "; unhealthy; StatefulSet/db: 1 ungated, not carried"}},
		"the pods of a workload alike":   {State{Leases: held, Pods: []*corev1.Pod{holder}, Workloads: []client.Object{deployed("web", "true", 1), deployed("web-7d4c-x", "true", 0)}}, []string{web + " singleton held by a"}},
		"refused pods of a StatefulSet":  {State{Events: []*corev1.Event{refusal("db")}, Pods: []*corev1.Pod{gated("db-0", "lock.x", by("StatefulSet", "db"))}, Workloads: []client.Object{set}}, []string{"lock.x lock missing; db-0 waits: StandingBy; unhealthy", dbs + "; unhealthy; StatefulSet/db: 0 ungated: denied"}},
		"a StatefulSet that comes":       {State{Pods: []*corev1.Pod{gated("db-0", "singleton.statefulset.db", by("StatefulSet", "db"))}, Workloads: []client.Object{set}}, []string{dbs + "; db-0 waits: StandingBy; unhealthy"}},
		"an old refusal of a DaemonSet":  {State{Events: []*corev1.Event{refusal("node")}, Workloads: []client.Object{agents}}, []string{"singleton.daemonset.node singleton missing; unhealthy; DaemonSet/node: 3 ungated"}},
		"a Job":                          {State{Workloads: []client.Object{job("map", "", 1)}}, []string{"singleton.job.map singleton missing; unhealthy; Job/map: 1 ungated"}},
		"a refused Job":                  {State{Events: []*corev1.Event{refusal("map")}, Workloads: []client.Object{job("map", "", 0)}}, []string{"singleton.job.map singleton missing; unhealthy; Job/map: 0 ungated: denied"}},
		"the Jobs of a CronJob":          {State{Workloads: []client.Object{job("tue-1", "tue", 1), job("tue-2", "tue", 1)}}, []string{"singleton.cronjob.tue singleton missing; unhealthy; CronJob/tue: 2 ungated"}},
		"the versions of a Knative Service": {State{Pods: []*corev1.Pod{gated("x", "singleton.deployment.x", by("ReplicaSet", "s-1-7d4c"))}, Workloads: []client.Object{knatives("s-1"), knatives("s-2")}}, []string{
			"singleton.deployment.x singleton missing; x waits: StandingBy; unhealthy", "singleton.service-serving-knative-dev.s singleton missing; unhealthy; Service.serving.knative.dev/s: 1 ungated"}},
		"a gated Job with a person's name": {State{Leases: []*coordinationv1.Lease{lease("singleton.cronjob.tue", "", nil)}, Pods: []*corev1.Pod{gated("x", "singleton.deployment.x", by("Job", "wednesday"))}, Workloads: []client.Object{job("wednesday", "tue", 1)}}, []string{"singleton.cronjob.tue singleton free", "singleton.deployment.x singleton missing; x waits: StandingBy; unhealthy"}},
		"the gated Jobs of a CronJob":      {State{Leases: []*coordinationv1.Lease{lease("singleton.cronjob.tue", "", nil)}, Pods: []*corev1.Pod{gated("x", "singleton.deployment.x", by("Job", "tue-1"))}, Workloads: []client.Object{job("tue-1", "tue", 1)}}, []string{"singleton.cronjob.tue singleton free", "singleton.deployment.x singleton missing; x waits: StandingBy; unhealthy"}},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, s := range c.state.Slots(nil, 3) {
				line := shown(s)
				for _, g := range s.Gaps {
					line += fmt.Sprintf("; %s: %d ungated", g.Workload, g.Ungated)
					if g.NotCarried {
						line += ", not carried"
					}
					if g.Refused != "" {
						line += ": " + g.Refused
					}
				}
				lines = append(lines, line)
			}
			assert.Equal(t, c.want, lines)
		})
	}
}

func TestSlotNamesOnlySomeWorkloads(t *testing.T) {
	var many []client.Object
	for i := range 2 * mostWorkloads {
		d := deployed(fmt.Sprint("web-", i), "true", 1).(*appsv1.Deployment)
		d.Annotations = map[string]string{api.LockAnnotation: "a"}
		many = append(many, d)
	}
	assert.Len(t, State{Workloads: many}.Slots(nil, 3)[0].Gaps, mostWorkloads)
}
