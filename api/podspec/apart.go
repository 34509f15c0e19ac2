// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// Apart are workloads of one owner, such as an operator's object or the groups of a LeaderWorkerSet, whose
// pods claim a singleton. Each of these workloads has a slot of its own, so one pod of each runs.
type Apart struct {
	Owner api.Workload
	// Workloads are sorted, and at least two.
	Workloads []api.Workload
}

// ApartOf returns such workloads, sorted by their owner. The pods are those of one namespace that have a
// gate. The argument "controllers" has the controller of each Deployment, StatefulSet and DaemonSet that
// has one.
func ApartOf(pods []*corev1.Pod, controllers map[api.Workload]*metav1.OwnerReference) []Apart {
	type group struct {
		owner api.Workload
		claim string // a person may give two singletons different names
	}
	slots := map[group]map[string]api.Workload{}
	for _, pod := range pods {
		maker, made := Maker(pod)
		owner := ownerOf(maker, controllers)
		if name := pod.Labels[groupLabel]; name != "" {
			owner = api.Workload{Group: "leaderworkerset.x-k8s.io", Kind: "LeaderWorkerSet", Name: name}
		}
		if !made || owner == (api.Workload{}) || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for slot, claim := range Singletons(pod) {
			of := group{owner, claim}
			if slots[of] == nil {
				slots[of] = map[string]api.Workload{}
			}
			slots[of][slot] = maker
		}
	}
	var all []Apart
	for of, makers := range slots {
		if len(makers) > 1 {
			all = append(all, Apart{of.owner, slices.SortedFunc(maps.Values(makers), byText)})
		}
	}
	slices.SortFunc(all, func(a, b Apart) int { return byText(a.Owner, b.Owner) })
	return all
}

// Singletons returns the singleton slots of a gated pod, each with the part of its name that has the name of the claim. The
// result is empty if the pod has a lock, too, by which a person excludes other pods.
func Singletons(pod *corev1.Pod) map[string]string {
	found := map[string]string{}
	for slot := range strings.SplitSeq(pod.Annotations[api.SlotsAnnotation], ",") {
		if strings.HasPrefix(slot, api.LockLease("")) {
			return nil
		}
		if claim, ok := api.SingletonOf(slot); ok {
			found[slot] = claim
		}
	}
	return found
}

func byText(a, b api.Workload) int { return strings.Compare(a.String(), b.String()) }

// Maker returns the controller that made a pod, or the Deployment above it; false for a bare pod. The name
// of a Deployment's ReplicaSet ends in the hash of the pod's template.
func Maker(pod *corev1.Pod) (api.Workload, bool) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return api.Workload{}, false
	}
	of := WorkloadOf(owner)
	if name, ok := strings.CutSuffix(of.Name, "-"+pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]); ok && of.Kind == "ReplicaSet" {
		of.Kind, of.Name = "Deployment", name
	}
	return of, true
}

// groupLabel is the label with the name of the LeaderWorkerSet of a pod. The workers of each group belong
// to a StatefulSet that their leader pod controls, so no chain of workloads leads to the LeaderWorkerSet.
const groupLabel = "leaderworkerset.sigs.k8s.io/name"

// mostOwners bounds the steps from a workload to its top-most owner.
const mostOwners = 4

// ownerOf returns the top-most known owner of a workload's controller; empty if the workload has none. A
// custom object that makes its pods itself is its own owner.
func ownerOf(of api.Workload, controllers map[api.Workload]*metav1.OwnerReference) api.Workload {
	top := api.Workload{}
	if !slices.Contains([]string{"", "apps", "batch"}, of.Group) {
		top = of
	}
	for range mostOwners {
		owner := controllers[of]
		if owner == nil {
			break
		}
		of = WorkloadOf(owner)
		top = of
	}
	return top
}
