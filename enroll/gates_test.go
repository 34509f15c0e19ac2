// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// gates are the specs that the webhook makes for each gate, and specs that lack a
// part of a gate.
var gates = map[string]struct {
	spec corev1.PodSpec
	gate bool
}{
	string(api.GateContainer): {corev1.PodSpec{
		InitContainers: []corev1.Container{agent()},
		Containers:     []corev1.Container{{Name: "app", Command: []string{api.ShimProgram, "exec"}}},
	}, true},
	string(api.GatePod): {corev1.PodSpec{
		InitContainers: []corev1.Container{agent(), {Name: api.WaitContainer}},
	}, true},
	string(api.GateReadiness): {corev1.PodSpec{
		InitContainers: []corev1.Container{agent("run", "-gate=readiness")},
		ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "example.com/other"}, {ConditionType: api.ReadyCondition}},
	}, true},
	string(api.GateProgram): {corev1.PodSpec{
		InitContainers: []corev1.Container{agent("api", "-claims=lock/x")},
		Containers:     []corev1.Container{{Name: "app"}},
	}, true},
	"with a local API that ends": {corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: api.AgentContainer, Args: []string{"api", "-claims=lock/x"}}},
	}, false},
	"with an agent that ends": {corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: api.AgentContainer}, {Name: api.WaitContainer}},
	}, false},
	"without an agent": {corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: api.WaitContainer}},
		ReadinessGates: []corev1.PodReadinessGate{{ConditionType: api.ReadyCondition}},
	}, false},
	"without the readiness condition": {corev1.PodSpec{
		InitContainers: []corev1.Container{agent("run", "-gate=readiness")},
	}, false},
	"without the readiness argument": {corev1.PodSpec{
		InitContainers: []corev1.Container{agent()},
		ReadinessGates: []corev1.PodReadinessGate{{ConditionType: api.ReadyCondition}},
	}, false},
}

// A program may bid for each slot that its pod names. So each of these slots has a Lease, and the
// Role of the pod's account names that Lease.
func TestLocalAPIPodGetsLeasesAndARole(t *testing.T) {
	pod := lasting(gated("a", "till", "election.main,lock.b,semaphore.pool.0,semaphore.pool.1"), "1m")
	pod.Annotations[api.LocalAnnotation] = "lock/b,election/main,semaphore/pool=2"
	pod.Spec.InitContainers, pod.Spec.Containers = gates[string(api.GateProgram)].spec.InitContainers, gates[string(api.GateProgram)].spec.Containers
	w := newWorld(t, pod)
	w.settle(w.process())
	for _, slot := range []string{"election.main", "lock.b", "semaphore.pool.0", "semaphore.pool.1"} {
		require.NotNil(t, w.lease(slot), slot)
		assert.Empty(t, holder(w.lease(slot)), slot)
		assert.EqualValues(t, 60, *w.lease(slot).Spec.LeaseDurationSeconds)
		assert.Contains(t, w.role("till").Rules[0].ResourceNames, slot)
	}
	assert.Nil(t, w.lease("next.election.main"), "no pod of an election takes turns")
}

// A writer takes all slots, so a pod has the right to all slots, whatever the size in its claim.
func TestRWLockPodGetsRightsToAllSlots(t *testing.T) {
	slots := api.Claim{Kind: api.RWLock, Name: "catalog", Size: 2}.Slots(api.Workload{})
	require.Len(t, slots, 1+api.RWLockSlots)
	pod := gated("a", "till", strings.Join(slices.Sorted(slices.Values(slots)), ","))
	pod.Annotations[api.LocalAnnotation] = "rwlock/catalog=2"
	pod.Spec.InitContainers, pod.Spec.Containers = gates[string(api.GateProgram)].spec.InitContainers, gates[string(api.GateProgram)].spec.Containers
	w := newWorld(t, pod)
	w.settle(w.process())
	for _, slot := range slots {
		require.NotNil(t, w.lease(slot), slot)
		assert.Empty(t, holder(w.lease(slot)), slot)
		assert.Nil(t, w.lease("next."+slot))
	}
	assert.ElementsMatch(t, slots, w.role("till").Rules[0].ResourceNames)
}

// A pod with any gate keeps its Lease and Role as long as the pod exists, even after its namespace
// has opted out. The gate annotation alone is not a gate.
func TestGatedPodKeepsLeaseAfterNamespaceOptsOut(t *testing.T) {
	for name, test := range gates {
		t.Run(name, func(t *testing.T) {
			pod := gated("a", "till", "lock.x")
			pod.Annotations[api.GateAnnotation] = "readiness"
			pod.Spec.InitContainers, pod.Spec.Containers = test.spec.InitContainers, test.spec.Containers
			pod.Spec.ReadinessGates = test.spec.ReadinessGates
			w := newWorld(t, pod)
			r := w.process()
			w.settle(r)
			require.NotNil(t, w.lease("lock.x"), "opted in")
			w.optOut()
			w.settle(r)
			w.vanish("lock.x")
			w.settle(r)
			require.Equal(t, test.gate, w.lease("lock.x") != nil)
			if test.gate {
				w.holds("lock.x", "a_1")
			}
			w.remove(w.role("till"))
			w.settle(r)
			assert.Equal(t, test.gate, w.role("till") != nil)
		})
	}
}
