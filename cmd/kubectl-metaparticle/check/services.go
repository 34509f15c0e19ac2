// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// services warns of Services whose connections the standbys of their pods refuse.
func (c Cluster) services(ctx context.Context) (Finding, error) {
	names, err := optedIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var refused []string
	for _, namespace := range names {
		var services corev1.ServiceList
		var pods corev1.PodList
		if err := c.List(ctx, &services, client.InNamespace(namespace)); err != nil {
			return Finding{}, err
		}
		if err := c.List(ctx, &pods, client.InNamespace(namespace), client.HasLabels{api.GatedLabel}); err != nil {
			return Finding{}, err
		}
		var gated []*corev1.Pod
		for i := range pods.Items {
			gated = append(gated, &pods.Items[i])
		}
		for _, r := range podspec.Refused(services.Items, gated) {
			refused = append(refused, fmt.Sprintf("%s/%s (port %d/%s)", namespace, r.Service.Name, r.Number, r.Protocol))
		}
	}
	if len(refused) > 0 {
		return found(Warning, "name these ports in metaparticle.io/ports of the workloads, or set metaparticle.io/readiness: holder",
			"standbys are Ready, and refuse the connections of Services: %s", some(refused))
	}
	return ok("standbys forward the ports of all Services")
}
