// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// These are the resources of an injected container. The agent needs 11 MB (docs/evidence/benchmarks.md), and
// the limits leave room for a burst of watch events. A CPU limit of 100m lets the agent run
// 10 ms in every 100 ms, so a renewal never waits for long.
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

// resourcesOf returns the resources of an injected container, with which the pod keeps its
// QoS class. In a BestEffort pod the container states no CPU and no memory. In a Guaranteed
// pod the container's limits equal its requests. In a Burstable pod the container has small
// requests and a memory limit. A quota may demand a resource of every container, so the
// container states each resource that all others state.
func resourcesOf(p *Pod) corev1.ResourceRequirements {
	var containers []*corev1.Container
	for _, at := range p.own() {
		containers = append(containers, p.container(at))
	}
	all := func(states func(*corev1.Container, corev1.ResourceName) bool, name corev1.ResourceName) bool {
		return !slices.ContainsFunc(containers, func(c *corev1.Container) bool { return !states(c, name) })
	}
	if r := p.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		// The field spec.resources states the resources of the whole pod. These resources
		// determine the QoS class, and satisfy quotas. So an injected container needs none.
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
	fit(p.Limits, requests, limits, class == corev1.PodQOSGuaranteed)
	return corev1.ResourceRequirements{Requests: nonEmpty(requests), Limits: nonEmpty(limits)}
}

// requestOf returns the request of a container, or else its limit, as the API server does.
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

// qos returns the class of a pod with the containers, by Kubernetes' rules. In a BestEffort
// pod no container states CPU or memory. In a Guaranteed pod every container has limits of
// both that equal its requests. Zero counts as absent.
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

// fit moves the values into the bounds that the namespace's LimitRanges set for a container: min,
// max, and the ratio of limit to request. If the container does not state a resource, the API
// server later sets the LimitRange's default. If the argument "equal" is true, the requests become
// equal to the limits. Otherwise a limit below its request becomes equal to the request.
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
			if lowest, ok := item.Min[name]; ok && quantity.Cmp(lowest) < 0 {
				quantity = lowest
			}
			if highest, ok := item.Max[name]; ok && quantity.Cmp(highest) > 0 {
				quantity = highest
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
