// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
)

// rollout is what a Deployment, StatefulSet or DaemonSet says of how its pods are
// replaced. Its defaults are there: the API server sets them before it asks.
type rollout struct {
	Replicas *int32 `json:"replicas"`
	// Strategy is a Deployment's, UpdateStrategy the others'; theirs are alike.
	Strategy       appsv1.DeploymentStrategy        `json:"strategy"`
	UpdateStrategy appsv1.StatefulSetUpdateStrategy `json:"updateStrategy"`
}

// stalls warns about a rollout that waits for pods that are not to be Ready.
func (r rollout) stalls(kind string, annotations map[string]string, template *corev1.PodSpec) Refusals {
	request, err := api.Parse(annotations)
	if err != nil || !request.Claims() {
		return nil //nolint:nilerr // foresee has told the mistakes
	}
	if inits := gatedInits(&corev1.Pod{Spec: *template}, request); request.Standbys() != api.ReadinessHolder && len(inits) == 0 {
		return nil
	}
	replicas := 1
	if r.Replicas != nil {
		replicas = int(*r.Replicas)
	}
	var warnings Refusals
	switch {
	case kind == "StatefulSet" && replicas > 1 && r.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType:
		warnings.add(RolloutStalls, "a StatefulSet replaces a pod only when the one before is Ready")
	case kind == "DaemonSet" && r.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType && !r.allUnavailable():
		warnings.add(RolloutStalls, "a DaemonSet replaces no more pods while maxUnavailable of the new ones are not Ready")
	case kind == "Deployment" && r.Strategy.Type != appsv1.RecreateDeploymentStrategyType && r.unavailable(replicas) == 0:
		warnings.add(RolloutStalls, "with maxUnavailable 0 a Deployment keeps its old pod until the new one is Ready")
	}
	return warnings
}

// allUnavailable: the rollout of a DaemonSet may do without all of its pods. How
// many those are nobody knows here.
func (r rollout) allUnavailable() bool {
	u := r.UpdateStrategy.RollingUpdate
	return u != nil && u.MaxUnavailable != nil && u.MaxUnavailable.String() == "100%"
}

// unavailable is how many pods of a Deployment its rollout may do without. One,
// where rounding leaves it none, and none more than there are to be either.
func (r rollout) unavailable(replicas int) int {
	u := r.Strategy.RollingUpdate
	if u == nil {
		u = new(appsv1.RollingUpdateDeployment)
	}
	surge, first := scaled(u.MaxSurge, replicas, true)
	n, second := scaled(u.MaxUnavailable, replicas, false)
	switch {
	case first != nil || second != nil:
		return replicas // the API server refuses it
	case n == 0 && surge == 0:
		return 1
	}
	return n
}

// scaled is a limit of a rollout, a quarter if nothing is said, in pods.
func scaled(limit *intstr.IntOrString, replicas int, up bool) (int, error) {
	if limit == nil {
		quarter := intstr.FromString("25%")
		limit = &quarter
	}
	return intstr.GetScaledValueFromIntOrPercent(limit, replicas, up)
}
