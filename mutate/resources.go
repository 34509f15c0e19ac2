// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// What an injected container asks for. The agent is resident with less than
// 10 MB; the limits leave room for a burst of watch events. The CPU limit,
// where there must be one, lets it run 10 ms in every 100 ms, so that a renewal
// never waits for long.
var (
	smallRequests = corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("10m"),
		corev1.ResourceMemory:           resource.MustParse("16Mi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("16Mi"),
	}
	smallLimits = corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("100m"),
		corev1.ResourceMemory:           resource.MustParse("64Mi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("64Mi"),
	}
)

// resources keeps the pod in its QoS class and within the quotas that it met
// as it came: a BestEffort pod stays without any; in a Guaranteed one limits
// equal requests; in a Burstable one there are small requests and a limit of
// memory. A quota demands a resource of every container; so what all of the
// pod's containers state, the injected ones state too.
func (p parts) resources() corev1.ResourceRequirements {
	containers := p.own()
	all := func(states func(*corev1.Container, corev1.ResourceName) bool, name corev1.ResourceName) bool {
		return !slices.ContainsFunc(containers, func(c *corev1.Container) bool { return !states(c, name) })
	}
	if r := p.pod.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		// The pod has a budget of its own, which decides about class and quota.
		return corev1.ResourceRequirements{}
	}
	class := qos(containers)
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for name := range smallRequests {
		request, limit := all(statesRequest, name), all(statesLimit, name)
		if name != corev1.ResourceEphemeralStorage {
			switch class {
			case corev1.PodQOSBestEffort:
				request, limit = false, false
			case corev1.PodQOSBurstable:
				request, limit = true, limit || name == corev1.ResourceMemory
			case corev1.PodQOSGuaranteed:
				request, limit = true, true
			}
		}
		if limit {
			limits[name] = smallLimits[name].DeepCopy()
		}
		if request {
			requests[name] = smallRequests[name].DeepCopy()
		}
	}
	fit(p.limits, requests, limits, class == corev1.PodQOSGuaranteed)
	return corev1.ResourceRequirements{Requests: nonEmpty(requests), Limits: nonEmpty(limits)}
}

// own are the pod's containers without the injected ones.
func (p parts) own() []*corev1.Container {
	var own []*corev1.Container
	for _, list := range [][]corev1.Container{p.pod.Spec.Containers, p.pod.Spec.InitContainers} {
		for i := range list {
			if !ours(p.pod, list[i].Name) {
				own = append(own, &list[i])
			}
		}
	}
	return own
}

// requestOf is the limit where there is no request, as the API server fills it
// in.
func requestOf(c *corev1.Container, name corev1.ResourceName) (resource.Quantity, bool) {
	if request, ok := c.Resources.Requests[name]; ok {
		return request, true
	}
	limit, ok := c.Resources.Limits[name]
	return limit, ok
}

func statesRequest(c *corev1.Container, name corev1.ResourceName) bool {
	_, ok := requestOf(c, name)
	return ok
}

func statesLimit(c *corev1.Container, name corev1.ResourceName) bool {
	_, ok := c.Resources.Limits[name]
	return ok
}

// qos is the class of a pod with these containers, by Kubernetes' rules: of
// CPU and memory, BestEffort has neither anywhere, and Guaranteed has limits
// for both everywhere, equal to the requests. Zero counts as absent.
func qos(containers []*corev1.Container) corev1.PodQOSClass {
	some, guaranteed := false, true
	for _, c := range containers {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, _ := requestOf(c, name)
			limit := c.Resources.Limits[name]
			some = some || !request.IsZero() || !limit.IsZero()
			guaranteed = guaranteed && !limit.IsZero() && request.Cmp(limit) == 0
		}
	}
	switch {
	case !some:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	default:
		return corev1.PodQOSBurstable
	}
}

// fit moves the values into what the namespace's LimitRanges allow for a
// container: not below min, not above max, the limit not further above the
// request than the ratio. What is not stated is left to the ranges' defaults.
// With equal, requests are raised to the limits in the end.
func fit(ranges []corev1.LimitRange, requests, limits corev1.ResourceList, equal bool) {
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			if item.Type == corev1.LimitTypeContainer {
				fitItem(item, requests, limits)
			}
		}
	}
	for name, request := range requests {
		limit, ok := limits[name]
		switch {
		case ok && equal:
			requests[name] = limit
		case ok && request.Cmp(limit) > 0:
			limits[name] = request
		}
	}
}

func fitItem(item corev1.LimitRangeItem, requests, limits corev1.ResourceList) {
	for _, list := range []corev1.ResourceList{requests, limits} {
		for name, quantity := range list {
			if least, ok := item.Min[name]; ok && quantity.Cmp(least) < 0 {
				quantity = least
			}
			if most, ok := item.Max[name]; ok && quantity.Cmp(most) > 0 {
				quantity = most
			}
			list[name] = quantity
		}
	}
	for name, ratio := range item.MaxLimitRequestRatio {
		request, hasRequest := requests[name]
		limit, hasLimit := limits[name]
		if hasRequest && hasLimit && limit.AsApproximateFloat64() > request.AsApproximateFloat64()*ratio.AsApproximateFloat64() {
			requests[name] = limit
		}
	}
}

func nonEmpty(list corev1.ResourceList) corev1.ResourceList {
	if len(list) == 0 {
		return nil
	}
	return list
}
