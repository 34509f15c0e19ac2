// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// Endpoints returns the names of the pods to which a Service sends requests.
func Endpoints(s *space.Space, service *corev1.Service) (pods []string) {
	slicesOf, err := s.Client.DiscoveryV1().EndpointSlices(s.Namespace).List(s.Context(),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service.Name})
	require.NoError(s, err)
	for _, slice := range slicesOf.Items {
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready != nil && *endpoint.Conditions.Ready && endpoint.TargetRef != nil {
				pods = append(pods, endpoint.TargetRef.Name)
			}
		}
	}
	return pods
}

// Ask sends a request to a pod and returns the name of the pod that answers. If no pod answers, the
// result is empty.
func Ask(s *space.Space, pod *corev1.Pod) string {
	name, err := AskOnce(s, s.Context(), pod)
	if err != nil {
		return ""
	}
	return name
}

// AskOnce sends one request to a pod, and returns the name of the pod that answers. If no pod
// answers, AskOnce returns an error.
func AskOnce(s *space.Space, ctx context.Context, pod *corev1.Pod) (string, error) {
	body, err := s.Client.CoreV1().Pods(s.Namespace).ProxyGet("http", pod.Name, "8080", "/", nil).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, body) // the body has the reason
	}
	var meta record.Meta
	err = json.Unmarshal(body, &meta)
	return meta.Pod, err
}
