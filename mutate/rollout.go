// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// rollout has the fields by which a workload replaces its pods. The API server fills in defaults
// for these fields before it calls the webhook.
type rollout struct {
	Replicas            *int32                         `json:"replicas"`
	PodManagementPolicy appsv1.PodManagementPolicyType `json:"podManagementPolicy"`
	// ProgressDeadlineSeconds belongs to a Deployment.
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds"`
	// Strategy belongs to a Deployment. UpdateStrategy belongs to a StatefulSet or a DaemonSet.
	Strategy       strategy `json:"strategy"`
	UpdateStrategy strategy `json:"updateStrategy"`
}

// strategy has the fields of the strategies of all kinds.
type strategy struct {
	Type          string `json:"type"`
	RollingUpdate struct {
		MaxSurge       *intstr.IntOrString `json:"maxSurge"`
		MaxUnavailable *intstr.IntOrString `json:"maxUnavailable"`
		Partition      int                 `json:"partition"`
	} `json:"rollingUpdate"`
}

// fewer warns of a workload with fewer pods than shards, because some shards then wait. A
// DaemonSet has as many pods as nodes, which the webhook does not know. A workload that is
// scaled to 0 gets no warning, because a person wants it to run no shard.
func (r rollout) fewer(kind string, request api.Request) reason.Refusals {
	replicas, shards := r.count(), request.Shards()
	var warnings reason.Refusals
	if shards > replicas && replicas > 0 && api.BuiltinOwner(kind).Replicas {
		warnings.Add(reason.FewerPods, "%d replicas, and %s is %d", replicas, api.ShardsAnnotation, shards)
	}
	return warnings
}

// alone warns of a workload with one pod that would hand over to a standby or needs its support, and of one with
// several pods whose holder blocks the slot for a long time. Pods of other workloads can stand by for a lock, but
// are never preferred.
func (r rollout) alone(kind string, request api.Request) reason.Refusals {
	of, warnings := api.BuiltinOwner(kind), reason.Refusals(nil)
	if request.Failsafe.Alone && (r.count() > 1 || of.PerNode) {
		stated := request.Failsafe.Stated(request.LeaseDuration)
		warnings.Add(reason.SlowTakeover, "after the loss of a node the other pods wait %v for the slot", stated)
	}
	if r.count() != 1 || !of.Rolls || !of.Replicas {
		return warnings
	}
	if _, own := request.Within(api.ScopeWorkload); own && request.YieldAfter > 0 {
		warnings.Add(reason.NoStandby, "%s is set, and replicas is 1", api.YieldAfterAnnotation)
	}
	if request.Failsafe != (api.Failsafe{}) && !request.Failsafe.Alone {
		warnings.Add(reason.NobodySupports, "%s is set without alone, and replicas is 1", api.FailsafeAnnotation)
	}
	if request.Prefer != (api.Preference{}) {
		warnings.Add(reason.NoStandby, "%s is set, and replicas is 1", api.PreferAnnotation)
	}
	return warnings
}

// beside warns of an update after which several pods can run the application at once. The argument
// "old" is the rollout before the update. The arguments "before" and "now" are the slots without which a
// pod does not run its application, before the update and after it. Some controllers delete every old pod
// before they make a new pod. They cause no warning, unless the pods need no slot any more. ReplicaSets and Jobs
// replace no pods.
func (r rollout) beside(kind string, old rollout, before, now []string) reason.Refusals {
	of, pods := api.BuiltinOwner(kind), min(old.count(), r.count())
	several := of.PerNode || max(old.count(), r.count()) > 1
	surges := of.Surges && r.Strategy.Type != recreate
	keeps := surges || !of.Surges && several
	claims, shared := len(now) > 0, slices.ContainsFunc(now, func(s string) bool { return slices.Contains(before, s) })
	var warnings reason.Refusals
	switch {
	case !of.Rolls, pods == 0 && !of.PerNode:
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
