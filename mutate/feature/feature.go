// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package feature lists everything that a gate touches in a pod: commands, probes, hooks,
// ports, resources, and so on. Each feature has a file of its own.
//
// Guarantee: a feature judges the pod as the webhook received the pod, and patches the pod only if
// no feature refuses the pod. A patch describes the state of a gated pod. A pod that is already in
// that state gets no operation.
//
// Not guaranteed: any rule about several pods. A feature reads one pod, and the [Facts] about its
// owners and the cluster.
//
// Rejected: a type for each feature, which would have no state; a list for each gate, because most
// features are the same with every gate; refusals sorted by name, because the first is the reason
// of the Event, and people repair pods in this order. The agent's sidecar comes after the pod's own
// init containers, so that a mesh's proxy which starts before it also ends after it, and the
// release has a network.
package feature

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// feature is one concern of a gate. Nil functions are skipped.
type feature struct {
	name string
	// unclaimed is true if the feature also concerns a pod that claims nothing. Such a pod
	// has conditions or a barrier, and gets only the containers that wait for them.
	unclaimed bool
	// judge returns the refusals of the gate that the pod asks for.
	judge func(*Pod) reason.Refusals
	// judgeContainer returns the refusals of one of the pod's own containers.
	judgeContainer func(*Pod, place) reason.Refusals
	// warn returns the warnings about a pod that no feature refuses.
	warn func(*Pod) reason.Refusals
	// patch makes the changes of the feature.
	patch func(*Pod, *patch.Document)
}

// features are in the order of the judgements and of the patches. The first refusal is the
// reason of the Event on the pod's workload, so people repair pods in this order.
var features = []feature{
	// These features decide whether the pod can have a gate at all.
	{name: "containers", judge: judgeContainers, patch: patchContainers},
	{name: "processes", judge: judgeProcesses, warn: warnOfToken},
	{name: "owner", warn: warnOfOwnSlot},
	{name: "platform", unclaimed: true, judge: judgePlatform},
	{name: "inits", judge: judgeInits},
	{name: "names", unclaimed: true, judge: judgeNames},
	// The patches from here to the feature "sidecar" name the pod's containers by their indices. So
	// no patch before "sidecar" may change an index.
	{name: "probes", judgeContainer: judgeProbes, patch: patchProbes},
	{name: "rules", judgeContainer: judgeRules},
	{name: "waits", judgeContainer: judgeWaits},
	{name: "once", judge: judgeOnce, warn: warnOfFiles},
	{name: "startlock", judge: judgeStartLock},
	{name: "shards", judge: judgeShards},
	{name: "handover", judge: judgeHandovers, warn: warnOfPreference},
	{name: "after", judge: judgeAfter},
	{name: "barrier", unclaimed: true, judge: judgeBarrier},
	{name: "local", judge: judgeLocal},
	{name: "leftovers", judge: judgeLeftovers},
	{name: "volumes", unclaimed: true, judgeContainer: judgeMounts, patch: patchVolumes},
	{name: "ports", judgeContainer: judgePorts},
	{name: "forwarding", judge: judgeListed, warn: warnOfForwarding},
	{name: "gates", judge: judgeGate},
	{name: "lowports", judge: judgeLowPorts, patch: patchLowPorts},
	{name: "hooks", judge: judgeHooks, patch: patchHooks},
	{name: "fields", judge: judgeFields},
	{name: "shims", patch: patchShims},
	{name: "pid1", warn: warnOfPID1},
	{name: "deadline", unclaimed: true, warn: warnOfDeadline},
	{name: "ranges", unclaimed: true, warn: warnOfRanges},
	// This patch changes the indices of the init containers, so no later patch names an init
	// container by its index.
	{name: "sidecar", unclaimed: true, warn: warnOfImages, patch: patchSidecar},
	{name: "readiness", patch: patchReadiness},
	// The marks come last, because only a pod that no other feature refuses gets marks.
	{name: "marks", unclaimed: true, judge: judgeMarks, patch: patchMarks},
}

// featuresOf returns the features that concern the pod.
func featuresOf(p *Pod) []feature {
	if p.Request.Claims() {
		return features
	}
	return slices.DeleteFunc(slices.Clone(features), func(f feature) bool { return !f.unclaimed })
}

// NewPod returns the pod that the facts describe, or the refusal of a pod that is too large to
// judge.
func NewPod(f Facts) (*Pod, reason.Refusals) {
	if refusals := judgeNumber(f.Pod); len(refusals) > 0 {
		return nil, refusals
	}
	p := &Pod{Facts: f}
	if !f.Request.Claims() || f.Request.Gate == api.GateProgram && !api.Leashed(f.Request) {
		return p, nil
	}
	p.gated, p.inits = gatedContainers(f), gatedInits(f)
	if f.Request.Shims() {
		p.probes = carryProbes(f, p.gated)
	}
	if port, hinders := p.unforwarded(); hinders {
		p.hindered, p.Request.Readiness = port, api.ReadinessHolder
	}
	return p, nil
}

// Judge returns all refusals of the pod. People repair a pod container by container. So if
// several features in a row judge containers, all of them judge one container before the
// next container.
func (p *Pod) Judge() reason.Refusals {
	var refusals reason.Refusals
	own := p.own()
	for rest := featuresOf(p); len(rest) > 0; {
		judges := containerJudges(rest)
		for _, at := range own {
			for _, f := range rest[:judges] {
				refusals = append(refusals, f.judgeContainer(p, at)...)
			}
		}
		if rest = rest[judges:]; len(rest) == 0 {
			break
		}
		if f := rest[0]; f.judge != nil {
			refusals = append(refusals, f.judge(p)...)
		}
		rest = rest[1:]
	}
	return refusals
}

// containerJudges returns the number of features in front of the first feature that judges no
// containers.
func containerJudges(list []feature) int {
	for i, f := range list {
		if f.judgeContainer == nil {
			return i
		}
	}
	return len(list)
}

// Warn returns the warnings about a pod that no feature refuses.
func (p *Pod) Warn() reason.Refusals {
	var warnings reason.Refusals
	for _, f := range featuresOf(p) {
		if f.warn != nil {
			warnings = append(warnings, f.warn(p)...)
		}
	}
	return warnings
}

// Patch gates the pod in its document. The caller has judged the pod and looked up its
// images.
func (p *Pod) Patch() {
	for _, f := range featuresOf(p) {
		if f.patch != nil {
			f.patch(p, p.Document)
		}
	}
}
