// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

// firstRun and secondRun are the UIDs of two Jobs with the same name.
const (
	firstRun  = "0b1c2d3e-0000-4000-8000-0123456789ab"
	secondRun = "1b1c2d3e-0000-4000-8000-0123456789ab"
)

// gathered returns an injected pod that waits at the barrier of the given run. The argument "job"
// is the UID of the pod's Job.
func gathered(name, run, job string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: shop, Name: name, Labels: map[string]string{api.GatedLabel: api.GatedAfter},
		Annotations:     map[string]string{api.BarrierAnnotation: "warm=2"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "train", UID: types.UID(job), Controller: new(true)}},
	}}
	pod.Spec.ServiceAccountName = "till"
	args := api.BarrierArgs{Barrier: api.Barrier{Name: "warm", Size: 2}, Run: run, LeaseDuration: 20 * time.Second, Credentials: api.CredentialsPath}
	pod.Spec.InitContainers = []corev1.Container{{Name: api.BarrierContainer, Args: args.Args()}}
	return pod
}

// leasesOfRun returns the names of the Leases of a run's barrier.
func leasesOfRun(run string) []string { return api.Barrier{Name: "warm", Size: 2}.Leases(run) }

func TestPodGetsTheBarrierLeasesOfItsJob(t *testing.T) {
	w := newWorld(t, gathered("a", firstRun, firstRun), gathered("b", secondRun, secondRun))
	w.settle(w.process())
	for _, run := range []string{firstRun, secondRun} {
		for _, name := range leasesOfRun(run) {
			lease := w.lease(name)
			require.NotNil(t, lease, name)
			assert.Empty(t, *lease.Spec.HolderIdentity)
			assert.EqualValues(t, 20, *lease.Spec.LeaseDurationSeconds)
			require.Len(t, lease.OwnerReferences, 1, "the garbage collector deletes the Lease after the Job")
			assert.Equal(t, metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "train", UID: types.UID(run)}, lease.OwnerReferences[0])
		}
	}
	role := w.role("till")
	require.NotNil(t, role)
	assert.ElementsMatch(t, append(leasesOfRun(firstRun), leasesOfRun(secondRun)...), role.Rules[0].ResourceNames)
}

// programmed returns a pod of the given run, as [gathered] does. No init container of this pod
// waits at the barrier: the pod's program waits there, through the local API.
func programmed(name, run, job string) *corev1.Pod {
	pod := gathered(name, run, job)
	pod.Labels[api.GatedLabel] = api.Gated
	pod.Annotations = map[string]string{api.LocalAnnotation: "barrier/warm=2", api.SlotsAnnotation: "barrier/warm=2", api.LeaseDurationAnnotation: "1m"}
	args := api.DefaultLocalArgs()
	args.Claims, args.Run, args.LeaseDuration = []api.Claim{{Kind: api.Arrivals, Name: "warm", Size: 2}}, run, 20*time.Second
	pod.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, RestartPolicy: new(corev1.ContainerRestartPolicyAlways), Args: args.Args()}}
	return pod
}

func TestEnrollMakesBarrierLeasesForProgramsOfJobs(t *testing.T) {
	w := newWorld(t, programmed("a", firstRun, firstRun))
	w.settle(w.process())
	for _, name := range leasesOfRun(firstRun) {
		lease := w.lease(name)
		require.NotNil(t, lease, name)
		assert.EqualValues(t, 20, *lease.Spec.LeaseDurationSeconds, "the spec decides, which no user can change")
		require.Len(t, lease.OwnerReferences, 1, "the garbage collector deletes the Lease after the Job")
	}
	role := w.role("till")
	require.NotNil(t, role)
	assert.ElementsMatch(t, leasesOfRun(firstRun), role.Rules[0].ResourceNames, "the mark of the barrier names no Lease")
	w = newWorld(t, programmed("a", "", firstRun))
	w.settle(w.process())
	assert.Nil(t, w.role("till"), "a barrier without a run has no Lease")
}

// A pod of the second Job waits at the barrier of the first Job. Neither Job may own the Leases of
// this barrier.
func TestPodOfAnotherJobLeavesBarrierLeaseUnowned(t *testing.T) {
	w := newWorld(t, gathered("a", firstRun, secondRun))
	w.settle(w.process())
	assert.Empty(t, w.lease(leasesOfRun(firstRun)[0]).OwnerReferences)
}

func TestMalformedBarrierGivesNoRightsOnLeases(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"a lock":               func(p *corev1.Pod) { p.Spec.InitContainers[0].Args[1] = "-barrier=/lock.a=1" },
		"another command":      func(p *corev1.Pod) { p.Spec.InitContainers[0].Command = []string{"sh"} },
		"a container beside":   func(p *corev1.Pod) { p.Spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways) },
		"a pod that has ended": func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed },
	} {
		pod := gathered("a", firstRun, firstRun)
		change(pod)
		w := newWorld(t, pod)
		w.settle(w.process())
		assert.Nil(t, w.role("till"), name)
	}
}

func TestOpenBarriersLeaseOutlivesPodsIfJobExists(t *testing.T) {
	pod := gathered("a", firstRun, firstRun)
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	first := leasesOfRun(firstRun)[0]
	lease := w.lease(first)
	lease.Annotations = map[string]string{api.OpenedAnnotation: "2"}
	require.NoError(t, w.server.Update(t.Context(), lease))
	w.remove(pod)
	for range 3 {
		w.settle(r)
		w.now = w.now.Add(time.Hour)
	}
	assert.Nil(t, w.lease(leasesOfRun(firstRun)[1]), "only the record stays")
	assert.Nil(t, w.role("till"), "the account keeps no right")
	w.create(gathered("b", firstRun, firstRun))
	w.settle(r)
	assert.Equal(t, "2", w.lease(first).Annotations[api.OpenedAnnotation], "a later pod finds the barrier open")
	assert.ElementsMatch(t, leasesOfRun(firstRun), w.role("till").Rules[0].ResourceNames)
}

// A Job of another API group never owns a Lease. A Lease's reference to a Kubernetes Job names the
// version batch/v1, even if the pod's reference names another version. So the garbage collector
// finds the Job.
func TestOnlyKubernetesJobsOwnBarrierLeases(t *testing.T) {
	slot := api.Barrier{Name: "warm", Size: 1}.Leases("0a-1")[0]
	of := func(version string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{
			{APIVersion: version, Kind: "Job", Name: "train", UID: "0a-1", Controller: new(true)},
		}}}
	}
	assert.Empty(t, ownersOf(slot, of("batch.volcano.sh/v1alpha1")))
	for _, version := range []string{"batch/v1", "batch/v99"} {
		owners := ownersOf(slot, of(version))
		require.Len(t, owners, 1)
		assert.Equal(t, "batch/v1", owners[0].APIVersion)
	}
}
