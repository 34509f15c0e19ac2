// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// rollout has the fields by which a Deployment, StatefulSet or DaemonSet replaces its pods.
// The API server fills in defaults for these fields before it calls the webhook.
type rollout struct {
	Replicas *int32 `json:"replicas"`
	// Strategy belongs to a Deployment. UpdateStrategy belongs to a StatefulSet or a DaemonSet,
	// whose update strategies have the same fields.
	Strategy       appsv1.DeploymentStrategy        `json:"strategy"`
	UpdateStrategy appsv1.StatefulSetUpdateStrategy `json:"updateStrategy"`
}

// stalls warns of a rollout that waits for ever. The controller waits until each new pod is Ready,
// but a standby among these pods never becomes Ready. Pods that need no slot to become Ready cause
// no warning. With a once claim, all pods go on after one success. With a start lock alone, each
// pod becomes Ready after its start. With the local API, the agent does not change the pods'
// readiness.
func (r rollout) stalls(kind string, request api.Request, template *corev1.PodSpec) reason.Refusals {
	if feature.ShardsNeedNoPorts(template, request) && !feature.HasGatedInit(template, request) {
		return nil
	}
	if _, once := request.Once(); once || request.StartsOnly() || request.Gate == api.GateProgram || request.Standbys() != api.ReadinessHolder && !feature.HasGatedInit(template, request) {
		return nil
	}
	replicas := r.count()
	var warnings reason.Refusals
	switch {
	case kind == "StatefulSet" && replicas > 1 && r.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType:
		warnings.Add(reason.RolloutStalls, "a StatefulSet replaces a pod only when the one before is Ready")
	case kind == "DaemonSet" && r.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType && !r.allUnavailable():
		warnings.Add(reason.RolloutStalls, "a DaemonSet replaces no more pods while maxUnavailable of the new ones are not Ready")
	case kind == "Deployment" && replicas == 1 && takesTurn(request):
		// A Deployment with one replica gets no warning: the one new pod takes its turn, and
		// becomes Ready during that turn.
	case kind == "Deployment" && r.Strategy.Type != appsv1.RecreateDeploymentStrategyType && r.unavailable(replicas) == 0:
		warnings.Add(reason.RolloutStalls, "with maxUnavailable 0 a Deployment keeps its old pod until the new one is Ready")
	}
	return warnings
}

// fewer warns of a workload with fewer pods than shards, because some shards then wait. A
// DaemonSet has as many pods as nodes, which the webhook does not know. A workload that is
// scaled to 0 gets no warning, because a person wants it to run no shard.
func (r rollout) fewer(kind string, request api.Request) reason.Refusals {
	replicas, shards := r.count(), request.Shards()
	var warnings reason.Refusals
	if shards > replicas && replicas > 0 && (kind == "Deployment" || kind == "StatefulSet" || kind == "ReplicaSet") {
		warnings.Add(reason.FewerPods, "%d replicas, and %s is %d", replicas, api.ShardsAnnotation, shards)
	}
	return warnings
}

// beside warns of an update after which several pods can run the application at once. The argument
// "old" is the rollout before the update. The arguments "before" and "now" are the slots without which a
// pod does not run its application, before the update and after it. Some controllers delete every old pod
// before they make a new pod. They cause no warning, unless the pods need no slot any more. ReplicaSets and Jobs
// replace no pods.
func (r rollout) beside(kind string, old rollout, before, now []string) reason.Refusals {
	daemons, pods := kind == "DaemonSet", min(old.count(), r.count())
	several := daemons || max(old.count(), r.count()) > 1
	surges := kind == "Deployment" && r.Strategy.Type != appsv1.RecreateDeploymentStrategyType
	keeps := surges || kind != "Deployment" && several
	claims, shared := len(now) > 0, slices.ContainsFunc(now, func(s string) bool { return slices.Contains(before, s) })
	var warnings reason.Refusals
	switch {
	case kind != "Deployment" && kind != "StatefulSet" && !daemons, pods == 0 && !daemons:
	case len(before) > 0 && !claims && (several || surges):
		warnings.Add(reason.ClaimChanged, "without a slot, all pods run the application")
	case !claims || shared || !keeps:
	case len(before) == 0:
		warnings.Add(reason.ClaimChanged, "until the rollout is over, the earlier pods run the application without a slot")
	default:
		warnings.Add(reason.ClaimChanged, "until the rollout is over, the holder of %s runs the application beside the holder of %s", before[0], now[0])
	}
	return warnings
}

// count returns the number of replicas, whose default is one. A DaemonSet has no such number.
func (r rollout) count() int {
	if r.Replicas == nil {
		return 1
	}
	return int(*r.Replicas)
}

// takesTurn reports whether a pod of a new revision takes a turn before the old pod is
// deleted. The pod must claim exactly one slot that it holds while its application runs. The
// pod's annotations must allow turns and Ready standbys.
func takesTurn(request api.Request) bool {
	workload := api.Workload{Group: "apps", Kind: "Deployment", Name: "any"}
	life, _ := api.SplitSlots(request.Slots(workload))
	return request.Standbys() == api.ReadinessForward && request.TakesTurns() && len(life) == 1
}

// allUnavailable reports whether the rollout of a DaemonSet may stop all of its pods at the same
// time. The webhook does not know the number of pods, so the result is true only for 100%.
func (r rollout) allUnavailable() bool {
	u := r.UpdateStrategy.RollingUpdate
	return u != nil && u.MaxUnavailable != nil && u.MaxUnavailable.String() == "100%"
}

// unavailable returns the number of pods that the rollout of a Deployment may stop at the same
// time. If both maxSurge and maxUnavailable round to zero, the number is one.
func (r rollout) unavailable(replicas int) int {
	u := r.Strategy.RollingUpdate
	if u == nil {
		u = new(appsv1.RollingUpdateDeployment)
	}
	surge, first := scaled(u.MaxSurge, replicas, true)
	n, second := scaled(u.MaxUnavailable, replicas, false)
	switch {
	case first != nil || second != nil:
		// The API server refuses a malformed maxSurge or maxUnavailable. So the rollout needs
		// no warning.
		return replicas
	case n == 0 && surge == 0:
		return 1
	}
	return n
}

// scaled returns a limit of a rollout as a number of pods. An absent limit means a quarter of the
// replicas.
func scaled(limit *intstr.IntOrString, replicas int, up bool) (int, error) {
	if limit == nil {
		quarter := intstr.FromString("25%")
		limit = &quarter
	}
	return intstr.GetScaledValueFromIntOrPercent(limit, replicas, up)
}
