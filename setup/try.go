// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package setup tries an installation, and removes it. The command tools/install and the hooks
// of the Helm chart (cmd/webhook) take the same steps.
//
// A removal makes sure that no gated pod loses its Lease. [Disarm] looks for gated pods before it
// empties the webhook's configuration, and afterwards until the API server has stored the last gated
// pod. If Disarm finds a gated pod, Disarm restores the configuration and returns an error.
// The clock of this process measures the wait for late pods. Disarm relies on two facts. The API
// server bounds the time of a creation, and each API server learns of the emptied configuration
// within a second.
// [RemoveMade] looks again before it deletes Leases, and finds a pod that Disarm has missed.
package setup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// marksForged is the reason with which a policy refuses a pod with forged marks.
const marksForged = "MarksForged"

var (
	errNotGated = errors.New("a pod that claims was not gated")
	errNoPolicy = errors.New("a pod with forged marks was admitted: the policy metaparticle-marks is missing")
)

// AwaitGating waits until the webhook gates a pod. The function creates a pod that claims, as a
// dry run in a namespace that opted in. The dry run succeeds once the API server trusts the
// certificate, and the webhook answers with a gate.
func AwaitGating(ctx context.Context, c client.Client, namespace string) error {
	return Retry(ctx, func() error {
		gated, err := Try(ctx, c, namespace, Readable)
		if err != nil {
			return fmt.Errorf("try a pod: %w", err)
		}
		if !gated {
			return errNotGated
		}
		return nil
	})
}

// AwaitPolicies waits until a policy refuses a pod with forged marks. The API server does not call
// the webhook for that pod, because the pod has no annotation.
func AwaitPolicies(ctx context.Context, c client.Client, namespace string) error {
	return Retry(ctx, func() error {
		pod := proposed(namespace, Readable)
		pod.Labels = map[string]string{api.GatedLabel: api.Gated}
		err := c.Create(ctx, pod, client.DryRunAll)
		switch {
		case err == nil:
			return errNoPolicy
		case strings.Contains(err.Error(), marksForged):
			return nil
		}
		return fmt.Errorf("try a pod with forged marks: %w", err)
	})
}

// Readable is a container with a command, so the webhook does not read its image. The container
// complies with Pod Security "restricted", and states the resources that a ResourceQuota can demand.
var Readable = corev1.Container{
	Image: "try", Command: []string{"/try"},
	Resources: corev1.ResourceRequirements{Requests: little, Limits: little},
	SecurityContext: &corev1.SecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(65532)), AllowPrivilegeEscalation: new(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	},
}

// little are the resources of a container that never runs.
var little = corev1.ResourceList{
	corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
	corev1.ResourceEphemeralStorage: resource.MustParse("16Mi"),
}

// Try creates a pod that claims, as a dry run. The result reports whether the webhook gated the
// pod. The error is the answer of the API server, which may be the webhook's refusal.
func Try(ctx context.Context, c client.Client, namespace string, container corev1.Container) (gated bool, err error) {
	pod := proposed(namespace, container)
	pod.Annotations = map[string]string{api.LockAnnotation: "metaparticle-try"}
	err = c.Create(ctx, pod, client.DryRunAll)
	return pod.Labels[api.GatedLabel] == api.Gated, err
}

// proposed returns a pod for a dry run. The API server generates the name of the pod, so no other
// pod has that name. The answer of the API server overwrites the pod, so the pod has a copy of the
// container.
func proposed(namespace string, container corev1.Container) *corev1.Pod {
	container = *container.DeepCopy()
	container.Name = "try"
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "metaparticle-try-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{container}},
	}
}
