// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// claims are the claims of a namespace, by the names of the Leases.
type claims struct {
	step.Claims
	// first has the first claimant of each Lease: a workload, if one claims. Enroll writes the Events
	// about the slot on this object. If nil, nobody asks for the claimants.
	first map[string]client.Object
}

func newClaims() claims { return claims{step.Claims{}, map[string]client.Object{}} }

func (c claims) add(by client.Object, account string, duration time.Duration, slots ...string) {
	account = cmp.Or(account, "default")
	c.Add(step.RoleKey(account), account, duration, slots...)
	for _, slot := range slots {
		if c.Claims[slot] != nil && c.first != nil && c.first[slot] == nil {
			c.first[slot] = by
		}
	}
}

// addPod adds the claims of a gated pod, from the annotations that the webhook wrote.
//
// In a namespace that is not opted in, addPod ignores a pod without a gate. Users can add
// the annotations to a living pod, but no user can add a gate.
func (c claims) addPod(pod *corev1.Pod, optedIn bool) {
	a := claimFieldsOf(pod)
	if !a.counts(optedIn) {
		return
	}
	// Without the annotation of the lease duration, the default of the slot's kind applies. The
	// agent uses the same default. A value that does not parse has no effect.
	duration, _ := time.ParseDuration(a.duration)
	failsafe, _ := api.ParseFailsafe(a.failsafe)
	slots := slotsOf(pod)
	c.add(pod, a.account, failsafe.Stated(duration), slots...)
	by := ""
	if maker, made := podspec.Maker(pod); made {
		by = maker.String()
	}
	c.Count(by, step.Replicas{Living: 1}, slots...)
}

// addBarriers adds the Leases of the barriers at which a gated pod can arrive. The names come from
// the pod's spec, which no user can change. So enroll trusts the names even in a namespace that has
// not opted in.
func (c claims) addBarriers(pod *corev1.Pod) {
	if ended(pod) {
		return
	}
	for _, b := range podspec.BarriersOf(&pod.Spec) {
		c.add(pod, pod.Spec.ServiceAccountName, b.LeaseDuration, b.Leases()...)
	}
}

// claimFields contains the fields of a pod that determine the pod's claims.
type claimFields struct {
	account, slots, duration, failsafe string
	// ended is set for a pod whose containers have all ended. A terminating pod still
	// claims.
	ended bool
	gate  bool
	// runsShard is the result of the function runsShard for a sharded pod.
	runsShard bool
}

// counts reports whether the pod's claims are valid. A pod that has ended has no valid claims. A
// pod without a gate has valid claims only in a namespace that is opted in.
func (a claimFields) counts(optedIn bool) bool { return !a.ended && (optedIn || a.gate) }

func claimFieldsOf(pod *corev1.Pod) claimFields {
	_, shards := api.ShardsOf(slotsOf(pod))
	return claimFields{
		account:  pod.Spec.ServiceAccountName,
		slots:    pod.Annotations[api.SlotsAnnotation],
		duration: pod.Annotations[api.LeaseDurationAnnotation],
		failsafe: pod.Annotations[api.FailsafeAnnotation],
		ended:    ended(pod),
		gate:     podspec.HasGate(&pod.Spec),

		runsShard: shards > 0 && runsShard(pod),
	}
}

// slotsOf returns the names in the annotation that the webhook wrote on the pod.
func slotsOf(pod *corev1.Pod) []string {
	return slices.DeleteFunc(strings.Split(pod.Annotations[api.SlotsAnnotation], ","), func(slot string) bool { return slot == "" })
}

// runsShard reports whether a sharded pod waits for a shard or has a shard. The result is true for
// a Running pod. A pod with gated init containers becomes Running only with a shard, so for this
// pod the result is true even earlier. For a pod that is being deleted, the result is false.
func runsShard(pod *corev1.Pod) bool {
	gatesInit := slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return api.IsShim(c.Command) })
	return pod.DeletionTimestamp == nil && (pod.Status.Phase == corev1.PodRunning || gatesInit && !ended(pod))
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// addWorkload adds the claims of the pods that a workload is going to create. So the claimed Leases
// exist before the first pod, and stay between two Jobs of a CronJob.
func (c claims) addWorkload(w workload, request api.Request) {
	if !request.Claims() {
		return
	}
	slots := request.Slots(w.group)
	c.add(w.object, w.template.Spec.ServiceAccountName, request.Failsafe.Stated(request.LeaseDuration), slots...)
	c.Count(w.group.String(), step.Replicas{Declared: true, Wanted: replicas(w.object)}, slots...)
	for _, slot := range slots {
		if _, pod := c.first[slot].(*corev1.Pod); pod {
			c.first[slot] = w.object
		}
	}
}

// needs has, for each service account, the names of the objects that its pods need. The value of
// each name is the first pod or workload that needs the object.
type needs map[string]map[string]client.Object

func (n needs) add(by client.Object, account string, names []string) {
	account = cmp.Or(account, "default")
	for _, name := range names {
		if n[account] == nil {
			n[account] = map[string]client.Object{}
		}
		if n[account][name] == nil {
			n[account][name] = by
		}
	}
}

// awaitedBy returns the names of the Leases in the conditions of a gated pod. Users can change
// the labels and annotations of a living pod, but not its spec. The names come from the spec, so
// enroll uses them in every namespace. A condition is no claim, so enroll creates no Lease for a
// condition, and sweeps a Lease that only conditions name.
func awaitedBy(pod *corev1.Pod) []string {
	if ended(pod) {
		return nil
	}
	return leasesOf(podspec.ConditionsOf(&pod.Spec))
}

// leasesOf returns the Leases of the conditions, except each Lease that no claim can name. A person
// may write the init container of the conditions by hand, with the name of a foreign Lease. Enroll
// must give no right on that Lease.
func leasesOf(conditions []api.Condition) (leases []string) {
	for _, c := range conditions {
		for _, lease := range c.Leases() {
			if api.IsSlot(lease) {
				leases = append(leases, lease)
			}
		}
	}
	return leases
}

// variablesOf returns the Variables of a gated pod, from the annotation that the webhook wrote.
func variablesOf(pod *corev1.Pod) (names []string) {
	for _, mark := range slotsOf(pod) {
		if name, ok := api.VariableOf(mark); ok {
			names = append(names, name)
		}
	}
	return names
}
