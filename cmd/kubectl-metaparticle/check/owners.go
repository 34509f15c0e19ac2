// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// owners warns of workloads of one owner that each have a slot of their own, such as several StatefulSets
// of an operator's object. Only a person knows whether their pods should exclude each other. Without such
// workloads the check does not apply.
func (c Cluster) owners(ctx context.Context) (Finding, error) {
	namespaces, err := optedIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var apart []string
	for _, namespace := range namespaces {
		controllers, err := c.controllers(ctx, namespace)
		if err != nil {
			return Finding{}, err
		}
		pods, err := c.gated(ctx, namespace)
		if err != nil {
			return Finding{}, err
		}
		gated := make([]*corev1.Pod, len(pods))
		for i := range pods {
			gated[i] = &pods[i]
		}
		for _, of := range podspec.ApartOf(gated, controllers) {
			var names []string
			for _, w := range of.Workloads {
				names = append(names, w.String())
			}
			apart = append(apart, namespace+"/"+of.Owner.String()+" ("+some(names)+")")
		}
	}
	if len(apart) == 0 {
		return Finding{}, nil
	}
	return found(Warning, "if only one of all these pods may run, claim the same metaparticle.io/lock in all their templates ("+reason.Link(reason.OwnSlot)+")",
		"one object controls several workloads whose pods have a singleton of their own, so one pod of each runs: %s", some(apart))
}

// controllers returns the controllers of the workloads in a namespace.
func (c Cluster) controllers(ctx context.Context, namespace string) (map[api.Workload]*metav1.OwnerReference, error) {
	all := map[api.Workload]*metav1.OwnerReference{}
	for _, kind := range api.KindsOf(func(o api.Owner) bool { return o.Restarts }) {
		list := new(metav1.PartialObjectMetadataList)
		list.APIVersion, list.Kind = "apps/v1", kind+"List"
		if err := c.List(ctx, list, client.InNamespace(namespace), client.Limit(mostWorkloads)); err != nil {
			return nil, err
		}
		for _, w := range list.Items {
			if by := metav1.GetControllerOf(&w); by != nil {
				all[api.Workload{Group: "apps", Kind: kind, Name: w.Name}] = by
			}
		}
	}
	return all, nil
}
