// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

const namespace = "bench"

// pod returns a pod of a Deployment as the API server stores pods. The pod has default values, a
// volume for the service account's token, tolerations, environment variables, ports and resources.
// The pod's containers have no command of their own. The pod's annotations request the injection of
// our agent and of dapr's sidecar.
func pod(containers int, image func(int) string) *corev1.Pod {
	yes, seconds, mode := true, int64(30), int32(420)
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "biller-5b8c9d7f4d-", Namespace: namespace,
			Labels: map[string]string{"app": "biller", "pod-template-hash": "5b8c9d7f4d"},
			Annotations: map[string]string{api.SingletonAnnotation: "true",
				"dapr.io/enabled": "true", "dapr.io/app-id": "biller", "dapr.io/app-port": "8080"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet",
				Name: "biller-5b8c9d7f4d", UID: "4c1d5c0e-8a8e-4f0e-9d6e-0c1b8e4d2f3a", Controller: &yes, BlockOwnerDeletion: &yes}},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "default", RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst,
			TerminationGracePeriodSeconds: &seconds, SecurityContext: &corev1.PodSecurityContext{}, SchedulerName: "default-scheduler",
			Tolerations: []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute"},
				{Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute"}},
			EnableServiceLinks: &yes,
			Volumes: []corev1.Volume{{Name: "kube-api-access-x7k2p", VolumeSource: corev1.VolumeSource{
				Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
						Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
				}}}}},
		},
	}
	for i := range containers {
		p.Spec.Containers = append(p.Spec.Containers, container(i, image(i)))
	}
	return p
}

func container(i int, image string) corev1.Container {
	amount := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	c := corev1.Container{
		Name: fmt.Sprintf("part-%d", i), Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
		Ports:     []corev1.ContainerPort{{Name: fmt.Sprintf("http-%d", i), ContainerPort: int32(8080 + i), Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{Requests: amount, Limits: amount},
		VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x7k2p", ReadOnly: true,
			MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}},
		TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
	for n := range 10 {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", n), Value: fmt.Sprintf("value of %d", n)})
	}
	return c
}
