// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// waiter is the init container of the gate "pod".
const waiter role = "waiter"

// rebuilt bounds what the kubelet takes to restart all containers of a pod: the 30 s
// of the pod's grace if one does not end when it is told to, and what comes by
// itself: it looks at containers once a second, removes, and begins anew.
const rebuilt = 30*time.Second + soon

// insistent is an application of two replicas that ends at once unless it is
// PID 1 of its container, behind a gate. The shortest lease leaves the kubelet of a
// busy machine five seconds.
func insistent(name string, gate api.Gate) app {
	a := suffering(name)
	a.replicas = 2
	a.annotations[api.GateAnnotation] = string(gate)
	a.args = []string{"-pid1"}
	return a
}

// deployInFront creates the Deployment, and waits until one pod runs and the
// others wait in their init containers.
func deployInFront(t *testing.T, a app) holding {
	t.Helper()
	l := needLab(t, "it signals processes of pods")
	s := newSpace(t)
	s.create(a)
	h := holding{space: s, a: a, lab: l, before: s.awaitRunning(a, startTimeout)}
	h.awaitInFront()
	return h
}

// awaitInFront waits until one pod runs the application and all others wait.
func (h *holding) awaitInFront() {
	h.Helper()
	h.await(startTimeout, "one runs, the others wait", func() bool {
		waiting := 0
		for _, pod := range h.all(h.a.name) {
			if pod.DeletionTimestamp == nil && find(pod, waiter) != nil {
				waiting++
			}
		}
		h.before = h.running(h.a.name)
		return h.before != nil && waiting == int(*h.a.count())-1
	})
	h.victim = h.pod(h.before.Pod)
	require.NotNil(h, h.victim)
}

// conditionTrue tells what a condition says of a pod.
func conditionTrue(pod *corev1.Pod, condition corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == condition {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func agentRestarts(pod *corev1.Pod) int32 {
	for _, status := range pod.Status.InitContainerStatuses {
		if status.Name == api.AgentContainer {
			return status.RestartCount
		}
	}
	return 0
}

// An image whose entrypoint has to be PID 1, its slot yielded, stolen, and its
// pod deleted. Two at once are looked for in the whole record at the end.
//
// compat: gates/pid-1 gates/loss-restarts-all carried
func TestGatePodForImagesThatMustBePID1(t *testing.T) {
	t.Parallel()
	h := deployInFront(t, insistent("insistent", api.GatePod))
	slot := deploymentSlot(h.a.name)
	h.await(soon, "the holder is Ready", func() bool { return conditionTrue(h.pod(h.victim.Name), corev1.PodReady) })

	for _, c := range h.victim.Spec.Containers {
		assert.Empty(t, c.Command, "nothing of the application is changed")
		assert.NotContains(t, c.VolumeMounts, api.Volume)
	}

	var first, next *record.Process
	var yielded time.Duration
	// What was yielded has to expire. Who waited counts from the last renewal; the
	// yielder's new agent, which begins when the application is dead, two or three
	// seconds later: as long as a machine may stall. A yielder that did wait for its
	// whole lease has left the others their turn, and is asked again.
	for range 3 {
		h.awaitInFront()
		first = h.before
		h.mustSignal(h.victim, agent, unix.SIGUSR1)
		yielded = record.Now()
		h.await(faultLease+soon, "another takes over", func() bool { next = h.after(h.a, first); return next != nil })
		if next.Pod != first.Pod {
			break
		}
		waited := next.Start - h.process(first.ID).Last
		require.GreaterOrEqual(t, waited, faultLease, "the yielder contends as if it had waited with the others")
		h.remark("the yielder had its slot back after %v: those who waited were stalled", waited)
	}
	assert.NotEqual(t, first.Pod, next.Pod, "it has yielded to those who waited")
	assert.GreaterOrEqual(t, next.Start-h.process(first.ID).Last, time.Duration(0))
	t.Logf("dead %v after the yield, the next one started %v after it",
		(h.process(first.ID).Last - yielded).Round(time.Millisecond), (next.Start - yielded).Round(time.Millisecond))
	h.await(rebuilt, "all containers of the pod restarted", func() bool {
		pod := h.pod(h.victim.Name)
		return pod != nil && agentRestarts(pod) > 0 && find(pod, waiter) != nil
	})
	assert.Equal(t, h.victim.UID, h.pod(h.victim.Name).UID, "the pod is the same")

	h.awaitInFront()
	h.steal(slot)
	// Before anybody takes the thief's slot for expired.
	h.await(faultLease, "the holder's application is dead", func() bool { return h.vacant(h.a.name) })
	h.giveBack(slot)
	h.await(faultLease+rebuilt, "somebody runs again", func() bool { return h.after(h.a, h.before) != nil })

	h.awaitInFront()
	h.deletePod(h.victim)
	h.await(faultLease+soon, "another takes over", func() bool { return h.after(h.a, h.before) != nil })
	assert.Greater(t, h.vacancyAfter(h.a, h.before), faultLease/2, "nothing proves a death, so the slot expires")
}

// holdOf is the hold that a slot's Lease names, on the API server's word: what a
// watch has seen may be old.
func (s *space) holdOf(slot string) string {
	s.Helper()
	lease, err := s.client.CoordinationV1().Leases(s.name).Get(s.Context(), slot, metav1.GetOptions{})
	require.NoError(s, err)
	return lease.Annotations[api.HoldAnnotation]
}

// The agent's process is not the application's life: killed alone it is
// restarted alone, and the hold goes on; an application that crashes is
// restarted by the kubelet in its own container, under the same hold.
func TestGatePodAgentAndApplicationAreRestartedAlone(t *testing.T) {
	t.Parallel()
	a := insistent("alone", api.GatePod)
	// Nothing here is about losses: where a kubelet took twelve seconds to start the
	// agent again, that came too late for a short lease, and all were restarted.
	a.annotations[api.LeaseDurationAnnotation] = "1m"
	h := deployInFront(t, a)
	slot := deploymentSlot(h.a.name)
	hold := h.holdOf(slot)
	require.NotEmpty(t, hold)
	h.mustSignal(h.victim, agent, unix.SIGKILL)
	h.await(rebuilt, "the agent is restarted", func() bool {
		pod := h.pod(h.victim.Name)
		return agentRestarts(pod) == 1 && find(pod, agent) != nil
	})
	renewed := h.lease(slot).Spec.RenewTime.Time
	h.await(soon, "it renews", func() bool { return h.lease(slot).Spec.RenewTime.After(renewed) })
	h.never(faultLease, "another application", func() bool { return h.after(h.a, h.before) != nil })
	assert.Equal(t, hold, h.holdOf(slot), "the same hold")

	h.mustSignal(h.victim, child, unix.SIGKILL)
	var next *record.Process
	h.await(rebuilt, "the application is restarted", func() bool {
		next = h.after(h.a, h.before)
		return next != nil
	})
	assert.Equal(t, h.before.Pod, next.Pod)
	assert.Equal(t, hold, h.holdOf(slot), "the same hold")
	assert.Equal(t, int32(1), agentRestarts(h.pod(h.victim.Name)))
}

// Half a note is what a crash of the machine may leave. A new agent process does
// not know from it until when the application may run.
func TestGatePodWhoseNoteCannotBeReadBeginsAnew(t *testing.T) {
	t.Parallel()
	h := deployInFront(t, insistent("unreadable", api.GatePod))
	a := find(h.victim, agent)
	require.NotNil(t, a)
	require.True(t, a.signal(unix.SIGSTOP), "each renewal writes the note")
	note := fmt.Sprintf("/proc/%d/root%s/let-start", a.pid, api.RunPath)
	require.NoError(t, os.Truncate(note, 10))
	require.True(t, a.signal(unix.SIGKILL))
	h.await(rebuilt, "the application is dead", func() bool { return h.vacant(h.a.name) })
	h.await(rebuilt, "the pod stands by", func() bool { return find(h.victim, waiter) != nil })
	h.await(faultLease+rebuilt, "somebody runs again", func() bool { return h.after(h.a, h.before) != nil })
	assert.Greater(t, h.vacancyAfter(h.a, h.before), time.Duration(0))
	h.awaitInFront()
}

// Nothing in the pod enforces the deadline: the kubelet does, which needs no API
// server for it.
func TestGatePodCutOffTheKubeletStopsItBeforeAnotherStarts(t *testing.T) {
	h := deployInFront(t, insistent("insistent-cut", api.GatePod))
	var heal func()
	h.suffers(func() { heal = fault(t, h.victim.Spec.NodeName, h.lab.Cut, h.lab.Heal) })
	var next *record.Process
	h.await(faultLease+soon, "another takes over", func() bool { next = h.after(h.a, h.before); return next != nil })
	old := h.process(h.before.ID)
	t.Logf("dead %v after the cut, the next one started %v after it",
		(old.Last - h.at).Round(time.Millisecond), (next.Start - h.at).Round(time.Millisecond))
	assert.GreaterOrEqual(t, next.Start, h.seen+faultLease, "nobody starts before the lease has run out")
	heal()
	h.await(startTimeout, "the old pod waits", func() bool {
		pod := h.pod(h.victim.Name)
		return pod == nil || find(pod, waiter) != nil && find(pod, child) == nil
	})
	assert.Equal(t, next.ID, h.awaitRunning(h.a, soon).ID, "the healed pod disturbs nobody")
}

// endpoints are the pods that a Service sends requests to.
func (s *space) endpoints(service *corev1.Service) (pods []string) {
	slicesOf, err := s.client.DiscoveryV1().EndpointSlices(s.name).List(s.Context(),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service.Name})
	require.NoError(s, err)
	for _, slice := range slicesOf.Items {
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready != nil && *endpoint.Conditions.Ready && endpoint.TargetRef != nil {
				pods = append(pods, endpoint.TargetRef.Name)
			}
		}
	}
	return pods
}

// The application runs in every pod, and one of them serves.
//
// compat: gates/readiness carried
func TestGateReadinessOneOfThemServes(t *testing.T) {
	needLab(t, "it signals processes of pods")
	t.Parallel()
	s := newSpace(t)
	a := insistent("serving", api.GateReadiness)
	a.record = "$(POD_NAME)" // each is alone under its own name
	// Who loses a slot cannot always say so before the next one is shown.
	a.annotations[api.LeaseDurationAnnotation] = lastingLease.String()
	s.create(a)
	service := s.service(a)
	slot := deploymentSlot(a.name)
	s.awaitGated(a)
	asked := func() string {
		body, err := s.client.CoreV1().Services(s.name).ProxyGet("http", service.Name, "80", "/", nil).DoRaw(t.Context())
		var meta record.Meta
		if err != nil || json.Unmarshal(body, &meta) != nil {
			return ""
		}
		return meta.Pod
	}
	// shown are the pods of which our condition says that they may serve. Their
	// number is looked at whenever anything changes.
	shown := func() (names []string) {
		for _, pod := range s.all(a.name) {
			if conditionTrue(pod, api.ReadyCondition) && pod.DeletionTimestamp == nil {
				names = append(names, pod.Name)
			}
		}
		assert.LessOrEqual(s, len(names), 1, "two may serve: %v", names)
		return names
	}
	serving := func(other string) *corev1.Pod {
		t.Helper()
		var holder *corev1.Pod
		s.await(startTimeout, "the Service answers from the holder alone", func() bool {
			names := shown()
			holder = s.holder(slot)
			return holder != nil && len(names) == 1 && names[0] == holder.Name && holder.Name != other &&
				slices.Equal(s.endpoints(service), []string{holder.Name}) && asked() == holder.Name
		})
		// What the cluster's proxies have learnt of, kubelet after condition and
		// endpoint after kubelet, holds from here on.
		s.never(time.Second, "an answer from a standby", func() bool {
			answer := asked()
			shown()
			return answer != holder.Name && answer != ""
		})
		return holder
	}
	first := serving("")
	for _, pod := range s.all(a.name) {
		s.await(soon, "it runs in each pod", func() bool { return find(pod, child) != nil })
		assert.Len(t, pod.Spec.InitContainers, 1, "nothing but the agent")
	}
	s.mustSignal(first, agent, unix.SIGUSR1)
	second := serving(first.Name)
	s.deletePod(second)
	serving(second.Name)
	for _, pod := range s.all(a.name) {
		if pod.UID == first.UID {
			assert.Zero(t, agentRestarts(pod))
		}
	}
	assert.Zero(t, s.restarts(a), "nothing was stopped")
}
