// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// cachedPods calls the function "visit" with each gated pod in the cache.
func (s store) cachedPods(ctx context.Context, namespace string, visit func(*corev1.Pod)) error {
	var pods corev1.PodList
	selected, err := gatedIn(namespace)
	if err == nil {
		err = s.client.List(ctx, &pods, append(selected, client.UnsafeDisableDeepCopy)...)
	}
	if err != nil {
		return fmt.Errorf("list gated pods: %w", err)
	}
	for i := range pods.Items {
		visit(&pods.Items[i])
	}
	return nil
}

// livePods lists all gated pods consistently, and returns their claims, whether or not the
// namespace is opted in.
func (s store) livePods(ctx context.Context, namespace string) (claims, error) {
	wanted := claims{}
	var pods corev1.PodList
	selected, err := gatedIn(namespace)
	if err == nil {
		err = eachPage(ctx, s, &pods, func() {
			for i := range pods.Items {
				wanted.addPod(&pods.Items[i], true)
				wanted.addBarriers(&pods.Items[i])
			}
		}, selected...)
	}
	if err != nil {
		return nil, fmt.Errorf("list gated pods: %w", err)
	}
	return wanted, nil
}

func gatedIn(namespace string) ([]client.ListOption, error) {
	gated, err := gatedPods()
	return []client.ListOption{client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: gated}}, err
}

// gatedPods returns a selector for the pods that claim, and for the pods that only have conditions
// or a barrier.
func gatedPods() (labels.Selector, error) {
	gated, err := labels.NewRequirement(api.GatedLabel, selection.In, []string{api.Gated, api.GatedAfter})
	if err != nil {
		return nil, fmt.Errorf("select gated pods: %w", err)
	}
	return labels.NewSelector().Add(*gated), nil
}

// selectUngated reports for each selector whether it selects a pod that claims and has no gate. The
// function keeps no labels, because a pod may have megabytes of them.
func (s store) selectUngated(ctx context.Context, namespace string, selectors []labels.Selector) (selected []bool, err error) {
	without, err := labels.NewRequirement(api.GatedLabel, selection.DoesNotExist, nil)
	if err != nil {
		return nil, fmt.Errorf("select pods without a gate: %w", err)
	}
	var pods metav1.PartialObjectMetadataList
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	selected = make([]bool, len(selectors))
	err = eachPage(ctx, s, &pods, func() {
		for i := range pods.Items {
			if claiming(pods.Items[i].Annotations) {
				for j, selector := range selectors {
					selected[j] = selected[j] || selector.Matches(labels.Set(pods.Items[i].Labels))
				}
			}
		}
	}, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: labels.NewSelector().Add(*without)})
	if err != nil {
		return nil, fmt.Errorf("list pods without a gate: %w", err)
	}
	return selected, nil
}
