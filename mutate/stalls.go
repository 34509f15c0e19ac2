// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

const (
	recreate = string(appsv1.RecreateDeploymentStrategyType)
	onDelete = string(appsv1.OnDeleteStatefulSetStrategyType)
)

// stalls warns of a rollout that waits for ever because standbys are not Ready.
//
// Holders keep their slots until their pods are deleted. So old pods can hold all slots, and the
// available pods are then the old holders. A controller deletes an available old pod only while
// more pods are available than replicas minus maxUnavailable. That makes the bound of each kind:
// with n slots the rollout goes on if n + maxUnavailable exceeds the replicas. A pod that takes its
// turn is available beside the old pod that yielded, and so counts like one more slot. stalls_test.go
// compares the bound of Deployments with the steps of their controller.
func (r rollout) stalls(kubernetes int, kind string, request api.Request, template *corev1.PodSpec) reason.Refusals {
	n := readyPods(request, template)
	if n == 0 || r.count() == 0 {
		return nil
	}
	available := n
	if takesTurn(request) {
		available++
	}
	switch kind {
	case "Deployment":
		return r.deploymentStalls(n, available)
	case "StatefulSet":
		return r.statefulSetStalls(kubernetes, n, available)
	case "DaemonSet":
		return r.daemonSetStalls(n, available)
	}
	return nil
}

func (r rollout) deploymentStalls(n, available int) (warnings reason.Refusals) {
	replicas, unavailable := r.count(), r.unavailable()
	least := replicas - available + 1
	switch {
	case r.Strategy.Type != recreate && unavailable < least:
		warnings.Add(reason.RolloutStalls, "only %d of the old and new pods can be Ready at a time, so with maxUnavailable %d a Deployment of %d replicas keeps old pods for ever. It needs maxUnavailable of at least %d (100%% for any number of replicas), or the strategy Recreate", n, unavailable, replicas, least)
	case n < replicas:
		warnings.Add(reason.RolloutStalls, "the rollout replaces all pods, but only %d of %d can be Ready. So kubectl rollout status never succeeds, and the Deployment reports ProgressDeadlineExceeded after its progressDeadlineSeconds. Wait until status.updatedReplicas and status.replicas are %d", n, replicas, replicas)
	}
	return warnings
}

func (r rollout) statefulSetStalls(kubernetes, n, available int) (warnings reason.Refusals) {
	replicas, ordered := r.count(), r.PodManagementPolicy != appsv1.ParallelPodManagement
	byItself := r.UpdateStrategy.Type != onDelete && r.UpdateStrategy.Type != recreate
	counts := kubernetes >= maxUnavailableOfStatefulSets
	unavailable := 1
	if limit, err := scaled(r.UpdateStrategy.RollingUpdate.MaxUnavailable, replicas, false, intstr.FromInt32(1)); counts && err == nil {
		unavailable = max(1, limit)
	}
	switch {
	case ordered && n+1 < replicas:
		warnings.Add(reason.RolloutStalls, "only %d of its pods can be Ready at a time, and with OrderedReady a StatefulSet makes a pod only once all pods before it are Ready. So only %d of its %d pods ever exist. It needs podManagementPolicy Parallel, or %d replicas and updateStrategy OnDelete", n, n+1, replicas, n+1)
	case !byItself, r.UpdateStrategy.RollingUpdate.Partition >= replicas:
	case ordered && n < replicas:
		warnings.Add(reason.RolloutStalls, "only %d of its pods can be Ready at a time, and with OrderedReady a StatefulSet replaces no pod until all its %d pods are Ready. It needs updateStrategy OnDelete", n, replicas)
	case !ordered && available+unavailable <= replicas && counts:
		warnings.Add(reason.RolloutStalls, "only %d of the old and new pods can be Ready at a time, so with maxUnavailable %d a StatefulSet of %d replicas keeps old pods for ever. It needs maxUnavailable of at least %d (100%% for any number of replicas), or updateStrategy OnDelete", n, unavailable, replicas, replicas-available+1)
	case !ordered && available+unavailable <= replicas:
		warnings.Add(reason.RolloutStalls, "only %d of its pods can be Ready at a time, and a StatefulSet replaces one pod after the other, once the pod before is Ready. It needs updateStrategy OnDelete", n)
	case n < replicas:
		warnings.Add(reason.RolloutStalls, "the rollout replaces all pods, but only %d of %d can be Ready. So kubectl rollout status never succeeds. Wait until status.updatedReplicas is %d", n, replicas, replicas)
	}
	return warnings
}

// maxUnavailableOfStatefulSets is the minor version of Kubernetes since which a StatefulSet has
// maxUnavailable by default. Without this field one pod may be unavailable.
const maxUnavailableOfStatefulSets = 37

// daemonSetStalls warns without knowing the number of pods, which is the number of nodes.
func (r rollout) daemonSetStalls(n, available int) (warnings reason.Refusals) {
	u := r.UpdateStrategy.RollingUpdate
	surge, err := scaled(u.MaxSurge, 100, true, intstr.FromInt32(0))
	one := intstr.FromInt32(1)
	if u.MaxUnavailable == nil {
		u.MaxUnavailable = &one
	}
	all := u.MaxUnavailable.String() == "100%"
	switch {
	case err != nil, r.UpdateStrategy.Type == onDelete:
	case surge > 0:
		warnings.Add(reason.RolloutStalls, "only %d of its pods can be Ready at a time, and with maxSurge a DaemonSet keeps the old pod of a node until the new one is Ready. It needs maxSurge 0 and maxUnavailable 100%%, or updateStrategy OnDelete", n)
	case !all:
		warnings.Add(reason.RolloutStalls, "only %d of the old and new pods can be Ready at a time, so with maxUnavailable %s a DaemonSet keeps old pods for ever if it has more pods than %d. It needs maxUnavailable 100%%, or updateStrategy OnDelete", n, u.MaxUnavailable.String(), mostDaemons(u.MaxUnavailable, available))
	default:
		warnings.Add(reason.RolloutStalls, "the rollout replaces all pods, but only %d can be Ready. With more pods kubectl rollout status never succeeds. Wait until status.updatedNumberScheduled is status.desiredNumberScheduled", n)
	}
	return warnings
}

// mostDaemons returns the greatest number of pods with which the rollout of a DaemonSet goes on. At
// most 99% of the pods may be unavailable, so the rollout of 100 times as many pods as are available
// stops.
func mostDaemons(limit *intstr.IntOrString, available int) int {
	if limit.Type == intstr.Int {
		return available + max(1, limit.IntValue()) - 1
	}
	return sort.Search(100*available, func(i int) bool {
		unavailable, err := scaled(limit, i+1, true, *limit)
		return err != nil || available+unavailable <= i+1
	})
}

// readyPods returns the number of pods that are Ready at a time because they hold, or zero if
// standbys are Ready, too.
func readyPods(request api.Request, template *corev1.PodSpec) int {
	inits := feature.HasGatedInit(template, request)
	if !hasStandbys(request) || !inits && (request.Standbys() != api.ReadinessHolder || feature.ShardsNeedNoPorts(template, request)) {
		return 0
	}
	slots := []int{}
	for _, c := range request.Claimed {
		if !c.Kind.UntilReady {
			slots = append(slots, max(1, c.Size))
		}
	}
	return slices.Min(slots)
}

// hasStandbys reports whether further pods wait for as long as the holders run. With a once claim, all
// pods go on after one success. With a start lock alone, each pod becomes Ready after its start. With
// the local API, the agent changes neither the pods' application nor their readiness.
func hasStandbys(request api.Request) bool {
	_, once := request.Once()
	return request.Claims() && !once && !request.StartsOnly() && request.Gate != api.GateProgram
}

// takesTurn reports whether a pod of a new revision takes a turn before the old pod is
// deleted. The pod must claim exactly one slot that it holds while its application runs. The
// pod's annotations must allow turns and Ready standbys.
func takesTurn(request api.Request) bool {
	workload := api.Workload{Group: "apps", Kind: "Deployment", Name: "any"}
	life, _ := api.SplitSlots(request.Slots(workload))
	return request.Standbys() == api.ReadinessForward && request.TakesTurns() && len(life) == 1
}

// hurried warns of a Deployment that reports a healthy version as failed, because its first pod can take longer to be
// Ready than the controller waits for progress. Each later pod is Ready soon, without a turn.
func (r rollout) hurried(kind string, request api.Request, template *corev1.PodSpec) (warnings reason.Refusals) {
	if kind != "Deployment" || r.Strategy.Type == recreate || r.count() == 0 || r.ProgressDeadlineSeconds == nil || !takesTurn(request) {
		return nil
	}
	stops := time.Duration(ptr.Deref(template.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)) * time.Second
	leaves, starts := api.AnswerTime+ptr.Deref(request.EndpointDelay, api.DefaultEndpointDelay), startup(template)
	seconds := func(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
	if needs := seconds(api.TurnRest + leaves + stops + starts + api.TurnProof); int(*r.ProgressDeadlineSeconds) < needs {
		warnings.Add(reason.HurriedRollout, "progressDeadlineSeconds is %d, and a healthy version can need %d s: the old application serves for a minute between two turns, leaves its Services in %d s and stops in its grace of %d s; the new one starts in the %d s that its probes allow, and serves for 10 s",
			*r.ProgressDeadlineSeconds, needs, seconds(leaves), seconds(stops), seconds(starts))
	}
	return warnings
}

// startup returns the longest time that the startup and readiness probes of a container give it to start.
func startup(template *corev1.PodSpec) (longest time.Duration) {
	allows := func(p *corev1.Probe, successes int32) time.Duration {
		if p == nil {
			return 0
		}
		tries := cmp.Or(p.FailureThreshold, 3) + successes
		return time.Duration(int64(p.InitialDelaySeconds)+int64(tries)*int64(cmp.Or(p.PeriodSeconds, 10))) * time.Second
	}
	for _, c := range template.Containers {
		one := allows(c.StartupProbe, 0)
		if c.ReadinessProbe != nil {
			one += allows(c.ReadinessProbe, cmp.Or(c.ReadinessProbe.SuccessThreshold, 1))
		}
		longest = max(longest, one)
	}
	return min(longest, time.Hour)
}

// unavailable returns the number of pods that the rollout of a Deployment may stop at the same
// time. If both maxSurge and maxUnavailable round to zero, the number is one.
func (r rollout) unavailable() int {
	u, quarter := r.Strategy.RollingUpdate, intstr.FromString("25%")
	surge, first := scaled(u.MaxSurge, r.count(), true, quarter)
	n, second := scaled(u.MaxUnavailable, r.count(), false, quarter)
	switch {
	case first != nil || second != nil:
		// The API server refuses a malformed maxSurge or maxUnavailable. So the rollout needs
		// no warning.
		return r.count()
	case n == 0 && surge == 0:
		return 1
	}
	return n
}

// scaled returns a limit of a rollout as a number of pods.
func scaled(limit *intstr.IntOrString, pods int, up bool, absent intstr.IntOrString) (int, error) {
	return intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(limit, absent), pods, up)
}
