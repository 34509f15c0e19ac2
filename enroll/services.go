// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// ServiceNotForwarded is the reason of the Event on a Service that sends connections to a port which
// Ready standbys do not forward.
const ServiceNotForwarded = "ServiceNotForwarded"

// notifyUnforwarded writes an Event on each Service that sends connections to a port which the standbys
// of its pods do not forward. Each process writes one such Event on a Service, and another one if the
// fault comes again.
func (n *notifier) notifyUnforwarded(ctx context.Context, events Recorder, s store, namespace string, until *stint) error {
	if events == nil {
		return nil
	}
	var services corev1.ServiceList
	if err := s.client.List(ctx, &services, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	var pods []*corev1.Pod
	if len(services.Items) > 0 {
		if err := s.cachedPods(ctx, namespace, func(pod *corev1.Pod) { pods = append(pods, pod) }); err != nil {
			return err
		}
	}
	already, now := n.notForwarded.in(namespace), map[types.UID]bool{}
	standbys := podspec.StandbysOf(pods)
	for _, service := range anyFirst(services.Items) {
		if until.over() { // thousands of Services of one namespace must not keep the others waiting
			now[service.UID] = already[service.UID]
			continue
		}
		r, refused := podspec.RefusedOf(&service, standbys)
		if !refused {
			continue
		}
		if !already[r.Service.UID] {
			events.Eventf(r.Service, nil, corev1.EventTypeWarning, ServiceNotForwarded, "Enroll",
				"This Service sends connections to port %d/%s of pods such as %s. Their standbys are Ready, and refuse these connections, because they do not forward the port. "+
					"Name the port in metaparticle.io/ports, or set metaparticle.io/readiness: holder.",
				r.Number, r.Protocol, r.Pod)
		}
		now[r.Service.UID] = true
	}
	n.notForwarded.set(namespace, now)
	return nil
}
