// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// OwnSlot is the reason of the Event on a pod or a workload whose slot is its own, though other pods may
// have to compete for it. The webhook warns of what it can see of one object. But what makes the pods
// of a run or of an operator rarely shows anybody a warning.
const OwnSlot = "OwnSlot"

// isBare reports whether a gated pod without a controller has a singleton of its own. A pod that Velero
// restored before its controller has the singleton of its workload.
func isBare(pod *corev1.Pod) bool {
	if metav1.GetControllerOf(pod) != nil || !podspec.HasGate(&pod.Spec) || ended(pod) {
		return false
	}
	for slot, claim := range podspec.Singletons(pod) {
		_, name, _ := strings.Cut(claim, "-")
		if slot == api.SingletonLease(api.Workload{Kind: "Pod", Name: pod.Name}, name) {
			return true
		}
	}
	return false
}

// notifyApart writes an Event on each bare pod with a singleton of its own, and on each of several workloads
// of one owner whose pods have one. Each process writes one such Event on an object.
func (n *notifier) notifyApart(ctx context.Context, events Recorder, s store, seen *snapshot) error {
	if events == nil {
		return nil
	}
	already, now := n.apart.in(seen.namespace), map[types.UID]bool{}
	for _, pod := range seen.bare {
		if now[pod.UID] = true; !already[pod.UID] {
			events.Eventf(pod, nil, corev1.EventTypeWarning, OwnSlot, "Enroll",
				"This pod has no controller, so its singleton excludes only a pod of the same name. "+
					"If pods of other runs must wait for it, claim the same metaparticle.io/lock in all of them.")
		}
	}
	controllers := map[api.Workload]*metav1.OwnerReference{}
	for of, object := range seen.controlled {
		controllers[of] = metav1.GetControllerOf(object)
	}
	var pods []*corev1.Pod
	if len(controllers) > 0 {
		if err := s.cachedPods(ctx, seen.namespace, func(pod *corev1.Pod) { pods = append(pods, pod) }); err != nil {
			return err
		}
	}
	for _, apart := range podspec.ApartOf(pods, controllers) {
		for i, of := range apart.Workloads {
			object := seen.controlled[of]
			if object == nil || now[object.GetUID()] {
				continue
			}
			if now[object.GetUID()] = true; already[object.GetUID()] {
				continue
			}
			other := apart.Workloads[(i+1)%len(apart.Workloads)]
			events.Eventf(object, nil, corev1.EventTypeWarning, OwnSlot, "Enroll",
				"The pods of this %s have a singleton of their own, and so have those of %s, which %s controls, too: one pod of each runs. "+
					"If only one of all these pods may run, claim the same metaparticle.io/lock in all their templates.",
				of.Kind, other, apart.Owner)
		}
	}
	n.apart.set(seen.namespace, now)
	return nil
}
