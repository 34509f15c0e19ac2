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
	class, whole := qos(containers), ofWholePod(p)
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for name := range smallRequests {
		request, limit := all(statesRequest, name), all(statesLimit, name)
		if name != corev1.ResourceEphemeralStorage {
			switch {
			case whole != nil:
				some := slices.ContainsFunc(containers, func(c *corev1.Container) bool { return statesRequest(c, name) })
				withinWhole(whole, name, some, limit, requests, limits)
				continue
			case class == corev1.PodQOSBestEffort:
				request, limit = false, false
			case class == corev1.PodQOSBurstable:
				request, limit = true, limit || name == corev1.ResourceMemory
			case class == corev1.PodQOSGuaranteed:
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
	guaranteed := whole == nil && class == corev1.PodQOSGuaranteed
	if whole == nil {
		fitPod(p, requests, limits, guaranteed)
	}
	fit(p.Limits, requests, limits, guaranteed)
	return corev1.ResourceRequirements{Requests: nonEmpty(requests), Limits: nonEmpty(limits)}
}

// ofWholePod returns the field spec.resources, which states the resources of the whole pod; nil if the
// pod does not use it. These resources determine the QoS class, and satisfy quotas.
func ofWholePod(p *Pod) *corev1.ResourceRequirements {
	if r := p.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		return r
	}
	return nil
}

// withinWhole states a resource of an injected container in a pod with resources of its own. The
// requests of the containers may already add up to the pod's, so the container requests nothing, and
// says so, because a LimitRange would give it the default of every container. The arguments "some" and
// "all" report that some of the pod's containers state a request, and all of them a limit.
func withinWhole(whole *corev1.ResourceRequirements, name corev1.ResourceName, some, all bool, requests, limits corev1.ResourceList) {
	if _, ok := whole.Requests[name]; !ok && !some {
		return // the API server would take the zero for the request of the whole pod, instead of its limit
	}
	requests[name], limits[name] = resource.Quantity{}, smallLimits[name].DeepCopy()
	switch limit, ok := whole.Limits[name]; {
	case !ok && all:
		limits[name] = resource.Quantity{} // Kubernetes 1.37 adds the limits up to the pod's; zero means none
	case ok && limit.Cmp(limits[name]) < 0:
		limits[name] = limit
	}
}

// isOwnSize reports whether another webhook has left the resources of an injected container as they are. A
// later pass may then change them, because the pod's other containers may have changed.
func isOwnSize(r corev1.ResourceRequirements) bool {
	for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
		for name, quantity := range list {
			if request, limit := smallRequests[name], smallLimits[name]; !quantity.IsZero() && quantity.Cmp(request) != 0 && quantity.Cmp(limit) != 0 {
				return false
			}
		}
	}
	return true
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

func limitOf(c *corev1.Container, name corev1.ResourceName) (resource.Quantity, bool) {
	limit, ok := c.Resources.Limits[name]
	return limit, ok
}

func statesLimit(c *corev1.Container, name corev1.ResourceName) bool {
	_, ok := limitOf(c, name)
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

func nonEmpty(list corev1.ResourceList) corev1.ResourceList {
	if len(list) == 0 {
		return nil
	}
	return list
}
