// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

const namespace = "shop"

// kinds has, for each collection of the API that a replica of enroll reads or writes, the kind
// of the objects in that collection.
var kinds = map[string]string{
	"v1 pods":                                   "Pod",
	"v1 namespaces":                             "Namespace",
	"apps/v1 deployments":                       "Deployment",
	"apps/v1 statefulsets":                      "StatefulSet",
	"apps/v1 daemonsets":                        "DaemonSet",
	"batch/v1 cronjobs":                         "CronJob",
	"coordination.k8s.io/v1 leases":             "Lease",
	"rbac.authorization.k8s.io/v1 roles":        "Role",
	"rbac.authorization.k8s.io/v1 rolebindings": "RoleBinding",
}

// prepare makes a namespace that has opted in, with n gated pods.
func (s *server) prepare(n int) error {
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace, Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled},
	}}
	raw, err := json.Marshal(shop)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store("v1 namespaces", "ADDED", raw)
	for i := range n {
		if raw, err = json.Marshal(gatedPod(i)); err != nil {
			return err
		}
		s.store("v1 pods", "ADDED", raw)
	}
	return nil
}

// gatedPod returns a pod of a usual size, 6 KB of JSON.
func gatedPod(i int) *corev1.Pod {
	container := func(name string, command ...string) corev1.Container {
		c := corev1.Container{
			Name: name, Image: "registry.example.com/shop/" + name + ":1", Command: command,
			Args:         []string{"run", "-gate=" + string(api.GateContainer)},
			VolumeMounts: []corev1.VolumeMount{{Name: "metaparticle", MountPath: "/metaparticle"}},
		}
		for e := range 10 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", e), Value: strings.Repeat("v", 40)})
		}
		return c
	}
	agent := container(api.AgentContainer)
	agent.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprintf("worker-%05d", i),
			Labels:      map[string]string{api.GatedLabel: api.Gated, "app": "worker", "pod-template-hash": "5d8c7b9f4"},
			Annotations: map[string]string{api.SlotsAnnotation: fmt.Sprintf("lock.worker-%05d", i)},
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
				FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{` + strings.Repeat(`"f:labels":{},`, 100) + `"f:name":{}}}`),
			}},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "worker", NodeName: "node-1",
			InitContainers: []corev1.Container{agent},
			Containers:     []corev1.Container{container("app", api.ShimProgram, "exec", "--", "/app"), container("proxy")},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
	for _, condition := range []corev1.PodConditionType{corev1.PodReady, corev1.PodInitialized, corev1.ContainersReady, corev1.PodScheduled} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue})
	}
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: "sha256:" + strings.Repeat("0", 64), Ready: true,
		})
	}
	return pod
}
