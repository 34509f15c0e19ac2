// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func controlledBy(version, kind, name string) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: version, Kind: kind, Name: name, Controller: new(true)}
}

func TestWorkloadsOfOneOwnerWithSeveralSlotsAreApart(t *testing.T) {
	pod := func(slots string, owners ...metav1.OwnerReference) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: "5d4f"}, Annotations: map[string]string{api.SlotsAnnotation: slots}, OwnerReferences: owners,
		}}
	}
	of := func(kind, name string) *corev1.Pod {
		return pod(api.SingletonLease(api.Workload{Group: "apps", Kind: kind, Name: name}, ""), controlledBy("apps/v1", kind, name))
	}
	ended := of("StatefulSet", "main-1")
	ended.Status.Phase = corev1.PodSucceeded
	prometheus := func(names ...string) map[string]metav1.OwnerReference {
		all := map[string]metav1.OwnerReference{}
		for _, name := range names {
			all[name] = controlledBy("monitoring.example/v1", "Prometheus", "main")
		}
		return all
	}
	worker := func(set string) *corev1.Pod {
		p := of("StatefulSet", set)
		p.Labels["leaderworkerset.sigs.k8s.io/name"] = "infer"
		return p
	}
	const main = "Prometheus.monitoring.example/main: "
	for name, c := range map[string]struct {
		pods        []*corev1.Pod
		controllers map[string]metav1.OwnerReference // of a StatefulSet, or of Kind/name
		want        []string
	}{
		"one StatefulSet of an operator": {[]*corev1.Pod{of("StatefulSet", "main-0"), of("StatefulSet", "main-0")}, prometheus("StatefulSet/main-0", "StatefulSet/main-1"), nil},
		"two of them":                    {[]*corev1.Pod{of("StatefulSet", "main-1"), of("StatefulSet", "main-0")}, prometheus("StatefulSet/main-0", "StatefulSet/main-1"), []string{main + "StatefulSet/main-0 StatefulSet/main-1"}},
		"two, one of which has ended":    {[]*corev1.Pod{ended, of("StatefulSet", "main-0")}, prometheus("StatefulSet/main-0", "StatefulSet/main-1"), nil},
		"two that share a lock": {[]*corev1.Pod{pod("lock.a", controlledBy("apps/v1", "StatefulSet", "main-0")), pod("lock.a", controlledBy("apps/v1", "StatefulSet", "main-1"))},
			prometheus("StatefulSet/main-0", "StatefulSet/main-1"), nil},
		"two that share a lock, too": {[]*corev1.Pod{pod("lock.a,singleton.statefulset.main-0", controlledBy("apps/v1", "StatefulSet", "main-0")), pod("lock.a,singleton.statefulset.main-1", controlledBy("apps/v1", "StatefulSet", "main-1"))},
			prometheus("StatefulSet/main-0", "StatefulSet/main-1"), nil},
		"two with names for their singletons": {[]*corev1.Pod{pod("singleton-a.statefulset.main-0", controlledBy("apps/v1", "StatefulSet", "main-0")), pod("singleton-b.statefulset.main-1", controlledBy("apps/v1", "StatefulSet", "main-1"))},
			prometheus("StatefulSet/main-0", "StatefulSet/main-1"), nil},
		"two of a person": {[]*corev1.Pod{of("StatefulSet", "main-1"), of("StatefulSet", "main-0")}, nil, nil},
		"Deployments and ReplicaSets": {[]*corev1.Pod{
			pod("singleton.deployment.main-0", controlledBy("apps/v1", "ReplicaSet", "main-0-5d4f")), pod("singleton.deployment.main-1", controlledBy("apps/v1", "ReplicaSet", "main-1-5d4f")),
		}, prometheus("Deployment/main-0", "Deployment/main-1"), []string{main + "Deployment/main-0 Deployment/main-1"}},
		"Revisions of Knative, which share a slot": {[]*corev1.Pod{
			pod("singleton.service-serving-knative-dev.s", controlledBy("apps/v1", "ReplicaSet", "s-1-5d4f")), pod("singleton.service-serving-knative-dev.s", controlledBy("apps/v1", "ReplicaSet", "s-2-5d4f")),
		}, prometheus("Deployment/s-1", "Deployment/s-2"), nil},
		"pods and a StatefulSet of a custom object": {[]*corev1.Pod{
			pod("singleton.prometheus-monitoring-example.main", controlledBy("monitoring.example/v1", "Prometheus", "main")), of("StatefulSet", "main-0"),
		}, prometheus("StatefulSet/main-0"), []string{main + "Prometheus.monitoring.example/main StatefulSet/main-0"}},
		"groups of a LeaderWorkerSet": {[]*corev1.Pod{worker("infer-0"), worker("infer-1")}, map[string]metav1.OwnerReference{
			"StatefulSet/infer-0": controlledBy("v1", "Pod", "infer-0"), "StatefulSet/infer-1": controlledBy("v1", "Pod", "infer-1"),
		}, []string{"LeaderWorkerSet.leaderworkerset.x-k8s.io/infer: StatefulSet/infer-0 StatefulSet/infer-1"}},
		"owners in a circle": {[]*corev1.Pod{of("StatefulSet", "a"), of("StatefulSet", "b")}, map[string]metav1.OwnerReference{
			"StatefulSet/a": controlledBy("apps/v1", "StatefulSet", "b"), "StatefulSet/b": controlledBy("apps/v1", "StatefulSet", "a"),
		}, nil},
		"bare pods": {[]*corev1.Pod{pod("singleton.pod.a"), pod("singleton.pod.b")}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			controllers := map[api.Workload]*metav1.OwnerReference{}
			for text, by := range c.controllers {
				workload, ok := api.ParseWorkload(text)
				assert.True(t, ok, text)
				controllers[workload] = &by
			}
			var got []string
			for _, apart := range ApartOf(c.pods, controllers) {
				line := apart.Owner.String() + ":"
				for _, w := range apart.Workloads {
					line += " " + w.String()
				}
				got = append(got, line)
			}
			assert.Equal(t, c.want, got)
		})
	}
}
