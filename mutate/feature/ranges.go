// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"iter"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// warnOfRanges names each LimitRange because of which the API server refuses the pod with the injected
// containers, and not without them. The API server's own message names only a sum, or the agent.
func warnOfRanges(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	stated, whole := resourcesOf(p), ofWholePod(p)
	for _, r := range p.Limits {
		for _, item := range r.Spec.Limits {
			for _, name := range slices.Sorted(maps.Keys(smallRequests)) {
				request, limit := stated.Requests[name], stated.Limits[name]
				switch most := item.Max[name]; {
				case item.Type == corev1.LimitTypePod && whole == nil && !most.IsZero():
					if lacks(p, most, name, requestOf, request) || lacks(p, most, name, limitOf, limit) {
						warnings.Add(reason.AgentDoesNotFit, "LimitRange %q allows %s of %s for a pod, of which the pod's own containers leave too little", r.Name, most.String(), string(name))
					}
				case item.Type != corev1.LimitTypeContainer:
				case !most.IsZero() && name == corev1.ResourceMemory && most.Cmp(smallRequests[name]) < 0:
					warnings.Add(reason.AgentDoesNotFit, "LimitRange %q allows a container %s of memory", r.Name, most.String())
				case whole != nil && demands(item, name) && lacks(p, boundOf(whole, name), name, requestOf, request):
					warnings.Add(reason.AgentDoesNotFit, "LimitRange %q makes each container request %s, and the pod's own containers leave too little of the request of the whole pod (spec.resources)", r.Name, string(name))
				}
			}
		}
	}
	return warnings
}

// lacks reports whether a quantity is more than the pod's own containers leave of a maximum that they keep
// to.
func lacks(p *Pod, most resource.Quantity, name corev1.ResourceName, of func(*corev1.Container, corev1.ResourceName) (resource.Quantity, bool), quantity resource.Quantity) bool {
	left := left(p, most, name, of)
	return left.Sign() >= 0 && left.Cmp(quantity) < 0
}

// demands reports whether an item refuses containers that request none of a resource.
func demands(item corev1.LimitRangeItem, name corev1.ResourceName) bool {
	least, ratio := item.Min[name], item.MaxLimitRequestRatio[name]
	return !least.IsZero() || !ratio.IsZero()
}

// boundOf returns what the requests of a pod's containers may add up to.
func boundOf(whole *corev1.ResourceRequirements, name corev1.ResourceName) resource.Quantity {
	if request, ok := whole.Requests[name]; ok {
		return request
	}
	return whole.Limits[name]
}

// fit moves the values into the bounds that the namespace's LimitRanges set for a container: min,
// max, and the ratio of limit to request. If the container does not state a resource, the API
// server later sets the LimitRange's default. If the argument "equal" is true, the requests become
// equal to the limits. Otherwise a limit below its request becomes equal to the request.
func fit(ranges []corev1.LimitRange, requests, limits corev1.ResourceList, equal bool) {
	for item := range items(ranges, corev1.LimitTypeContainer) {
		fitItem(item, requests, limits)
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
	fitRatio(item, requests, limits)
}

// fitRatio raises each request that is too small for its limit to that limit.
func fitRatio(item corev1.LimitRangeItem, requests, limits corev1.ResourceList) {
	for name, ratio := range item.MaxLimitRequestRatio {
		request, hasRequest := requests[name]
		limit, hasLimit := limits[name]
		if hasRequest && hasLimit && limit.AsApproximateFloat64() > request.AsApproximateFloat64()*ratio.AsApproximateFloat64() {
			requests[name] = limit
		}
	}
}

// fitPod moves the values into the bounds that the namespace's LimitRanges set for the sum over a pod. If
// a limit would be too small for the agent, the container has none, unless the argument "guaranteed" is true.
func fitPod(p *Pod, requests, limits corev1.ResourceList, guaranteed bool) {
	for item := range items(p.Limits, corev1.LimitTypePod) {
		for name, most := range item.Max {
			request, asks := requests[name]
			if left := left(p, most, name, requestOf); asks && left.Cmp(request) < 0 && !defaulted(p.Limits, name) {
				requests[name] = atLeastZero(left)
			}
			limit, limited := limits[name]
			switch left := left(p, most, name, limitOf); {
			case !limited || left.Cmp(limit) >= 0:
			case left.Cmp(smallRequests[name]) >= 0:
				limits[name] = left
			case !guaranteed && !defaulted(p.Limits, name):
				delete(limits, name)
			}
		}
		fitRatio(item, requests, limits)
	}
}

// defaulted reports whether a LimitRange gives a resource to each container that does not state it.
func defaulted(ranges []corev1.LimitRange, name corev1.ResourceName) bool {
	for item := range items(ranges, corev1.LimitTypeContainer) {
		if _, ok := item.Default[name]; ok {
			return true
		}
	}
	return false
}

// left returns how much of a maximum for a pod its own containers leave; negative if they exceed it. An
// init container counts as if it ran beside all sidecars.
func left(p *Pod, most resource.Quantity, name corev1.ResourceName, of func(*corev1.Container, corev1.ResourceName) (resource.Quantity, bool)) resource.Quantity {
	var mains, sidecars, init resource.Quantity
	for _, at := range p.own() {
		c := p.container(at)
		switch quantity, _ := of(c, name); {
		case at.list == mainContainers:
			mains.Add(quantity)
		case c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways:
			sidecars.Add(quantity)
		case quantity.Cmp(init) > 0:
			init = quantity
		}
	}
	if init.Cmp(mains) > 0 {
		mains = init
	}
	left := most.DeepCopy()
	left.Sub(mains)
	left.Sub(sidecars)
	return left
}

func atLeastZero(q resource.Quantity) resource.Quantity {
	if q.Sign() < 0 {
		return resource.Quantity{}
	}
	return q
}

// items yields the items of a type in all LimitRanges.
func items(ranges []corev1.LimitRange, of corev1.LimitType) iter.Seq[corev1.LimitRangeItem] {
	return func(yield func(corev1.LimitRangeItem) bool) {
		for _, r := range ranges {
			for _, item := range r.Spec.Limits {
				if item.Type == of && !yield(item) {
					return
				}
			}
		}
	}
}
