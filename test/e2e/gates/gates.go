// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gates

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

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// rebuilt bounds the restart of all containers of a pod. A container that ignores its
// stop signal takes the grace of 30 s. The kubelet checks its pods once a second.
const rebuilt = 30*time.Second + space.Soon

// unhurried is the lease duration of tests in which only the kubelet ends the application of a holder
// that renews nothing. A kubelet once took twelve seconds to restart an agent. With [lease.Fault] that
// would be too late, and another pod would start the application.
const unhurried = 2 * lease.Fault

// insistent returns an application of two replicas behind a gate. The application ends immediately
// unless its process is PID 1. With the shortest lease, the kubelet of a busy machine would have
// only five seconds to stop the application. So the lease is longer.
func insistent(name string, gate api.Gate) app.App {
	a := app.Suffering(name)
	a.Replicas = 2
	a.Annotations[api.GateAnnotation] = string(gate)
	a.Args = []string{"-pid1"}
	return a
}

// deployInFront creates the Deployment, and waits until one pod runs the application. The other
// pods then wait in their last init container.
func deployInFront(t *testing.T, a app.App) holder.Holder {
	t.Helper()
	l := cluster.NeedLab(t, "it signals processes of pods")
	s := space.New(t)
	app.Create(s, a)
	h := holder.Holder{Space: s, App: a, Lab: l, Before: app.AwaitRunning(s, a, space.StartTimeout)}
	awaitInFront(&h)
	return h
}

// awaitInFront waits until one pod runs the application and all others wait. The running
// pod becomes the victim of h.
func awaitInFront(h *holder.Holder) {
	h.Helper()
	h.Await(space.StartTimeout, "one runs, the others wait", func() bool {
		waiting := 0
		for _, pod := range h.Pods(h.App.Name) {
			if pod.DeletionTimestamp == nil && process.Find(pod, process.Waiter) != nil {
				waiting++
			}
		}
		h.Before = h.Running(h.App.Name)
		return h.Before != nil && waiting == int(*h.App.Count())-1
	})
	h.Victim = h.Pod(h.Before.Pod)
	require.NotNil(h, h.Victim)
}

// agentRestarts returns the number of restarts of a pod's agent.
func agentRestarts(pod *corev1.Pod) int32 {
	for _, status := range pod.Status.InitContainerStatuses {
		if status.Name == api.AgentContainer {
			return status.RestartCount
		}
	}
	return 0
}

// The image's entrypoint must be PID 1. The test makes a holder yield, steals the slot from a
// holder, and deletes a holder. At the end of the test, the cleanup of its space searches the whole
// record for two applications at once.
//
// docs/reference/compatibility.md: gates/pid-1 gates/loss-restarts-all carried
func TestPodGateRunsImagesThatMustBePID1(t *testing.T) {
	cluster.NeedFeature(t, cluster.RestartAllContainers)
	t.Parallel()
	h := deployInFront(t, insistent("insistent", api.GatePod))
	slot := lease.OfDeployment(h.App.Name)
	h.Await(space.Soon, "the holder is Ready", func() bool { return status.Condition(h.Pod(h.Victim.Name), corev1.PodReady) })

	for _, c := range h.Victim.Spec.Containers {
		assert.Empty(t, c.Command, "nothing of the application is changed")
		assert.NotContains(t, c.VolumeMounts, api.Volume)
	}

	var first, next *record.Process
	var yielded time.Duration
	// With the gate "pod" nothing proves the death of the application, so a yielded slot has to
	// expire. The standbys count the lease duration from the last renewal. Meanwhile the
	// kubelet restarts all containers of the yielding pod. The pod's new agent begins to count
	// two or three seconds later, when the application is dead. So a standby is usually first,
	// unless a busy machine delays the standbys for that time. If the yielding pod takes the
	// slot again after a whole lease, the test repeats the yield.
	for range 3 {
		awaitInFront(&h)
		first = h.Before
		process.MustSignal(h.Space, h.Victim, process.Agent, unix.SIGUSR1)
		yielded = record.Now()
		h.Await(lease.Fault+space.Soon, "another takes over", func() bool { next = app.After(h.Space, h.App, first); return next != nil })
		if next.Pod != first.Pod {
			break
		}
		waited := next.Start - h.Process(first.ID).Last
		require.GreaterOrEqual(t, waited, lease.Fault, "the yielder contends as if it had waited with the others")
		h.Remark("the yielder had its slot back after %v: those who waited were stalled", waited)
	}
	assert.NotEqual(t, first.Pod, next.Pod, "it has yielded to those who waited")
	assert.GreaterOrEqual(t, next.Start-h.Process(first.ID).Last, time.Duration(0))
	t.Logf("dead %v after the yield, the next one started %v after it",
		(h.Process(first.ID).Last - yielded).Round(time.Millisecond), (next.Start - yielded).Round(time.Millisecond))
	h.Await(rebuilt, "all containers of the pod restarted", func() bool {
		pod := h.Pod(h.Victim.Name)
		return pod != nil && agentRestarts(pod) > 0 && process.Find(pod, process.Waiter) != nil
	})
	assert.Equal(t, h.Victim.UID, h.Pod(h.Victim.Name).UID, "the pod is the same")

	awaitInFront(&h)
	lease.Steal(h.Space, slot)
	// lease.Steal has written the name of a thief as the holder. The wait ends before the thief's
	// lease expires, so meanwhile no other pod starts the application.
	h.Await(lease.Fault, "the holder's application is dead", func() bool { return app.Vacant(h.Space, h.App.Name) })
	lease.GiveBack(h.Space, slot)
	h.Await(lease.Fault+rebuilt, "somebody runs again", func() bool { return app.After(h.Space, h.App, h.Before) != nil })

	awaitInFront(&h)
	app.DeletePod(h.Space, h.Victim)
	h.Await(lease.Fault+space.Soon, "another takes over", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	assert.Greater(t, app.VacancyAfter(h.Space, h.App, h.Before), lease.Fault/2, "nothing proves a death, so the slot expires")
}

// If the agent is killed, the kubelet restarts only the agent's container, and the hold
// goes on. If the application crashes, the kubelet restarts only the application's
// container, under the same hold.
func TestPodGateRestartsOnlyTheKilledContainer(t *testing.T) {
	cluster.NeedFeature(t, cluster.RestartAllContainers)
	t.Parallel()
	a := insistent("alone", api.GatePod)
	// The long lease prevents a loss. A kubelet once took twelve seconds to restart the
	// agent. Twelve seconds were too late for a short lease, so all containers restarted.
	a.Annotations[api.LeaseDurationAnnotation] = "1m"
	h := deployInFront(t, a)
	slot := lease.OfDeployment(h.App.Name)
	hold := lease.Hold(h.Space, slot)
	require.NotEmpty(t, hold)
	process.MustSignal(h.Space, h.Victim, process.Agent, unix.SIGKILL)
	h.Await(rebuilt, "the agent is restarted", func() bool {
		pod := h.Pod(h.Victim.Name)
		return agentRestarts(pod) == 1 && process.Find(pod, process.Agent) != nil
	})
	renewed := h.Lease(slot).Spec.RenewTime.Time
	h.Await(space.Soon, "it renews", func() bool { return h.Lease(slot).Spec.RenewTime.After(renewed) })
	h.Never(lease.Fault, "another application", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	assert.Equal(t, hold, lease.Hold(h.Space, slot), "the same hold")

	process.MustSignal(h.Space, h.Victim, process.Child, unix.SIGKILL)
	var next *record.Process
	h.Await(rebuilt, "the application is restarted", func() bool {
		next = app.After(h.Space, h.App, h.Before)
		return next != nil
	})
	assert.Equal(t, h.Before.Pod, next.Pod)
	assert.Equal(t, hold, lease.Hold(h.Space, slot), "the same hold")
	assert.Equal(t, int32(1), agentRestarts(h.Pod(h.Victim.Name)))
}

// The agent notes its hold in a file of the pod. A crash of the node may leave half of that note.
// Then a new agent process does not know the application's deadline, and stops the application.
func TestUnreadableHoldRecordMakesPodGateStopApplication(t *testing.T) {
	cluster.NeedFeature(t, cluster.RestartAllContainers)
	t.Parallel()
	a := insistent("unreadable", api.GatePod)
	a.Annotations[api.LeaseDurationAnnotation] = unhurried.String()
	h := deployInFront(t, a)
	agent := process.Find(h.Victim, process.Agent)
	require.NotNil(t, agent)
	require.True(t, agent.Signal(unix.SIGSTOP), "each renewal writes the note")
	note := fmt.Sprintf("/proc/%d/root%s/let-start", agent.PID, api.RunPath)
	require.NoError(t, os.Truncate(note, 10))
	require.True(t, agent.Signal(unix.SIGKILL))
	h.Await(rebuilt, "the application is dead", func() bool { return app.Vacant(h.Space, h.App.Name) })
	h.Await(rebuilt, "the pod stands by", func() bool { return process.Find(h.Victim, process.Waiter) != nil })
	h.Await(unhurried+rebuilt, "somebody runs again", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	assert.Greater(t, app.VacancyAfter(h.Space, h.App, h.Before), time.Duration(0))
	awaitInFront(&h)
}

// With the gate "pod" the agent ends at the beginning of the drain, and so makes the
// kubelet stop the application. The kubelet needs no API server for that.
func TestPodGateStopsApplicationOnADisconnectedNode(t *testing.T) {
	cluster.NeedFeature(t, cluster.RestartAllContainers)
	a := insistent("insistent-cut", api.GatePod)
	a.Annotations[api.LeaseDurationAnnotation] = unhurried.String()
	h := deployInFront(t, a)
	var heal func()
	h.Suffers(func() { heal = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.Cut, h.Lab.Heal) })
	var next *record.Process
	h.Await(unhurried+space.Soon, "another takes over", func() bool { next = app.After(h.Space, h.App, h.Before); return next != nil })
	old := h.Process(h.Before.ID)
	t.Logf("dead %v after the cut, the next one started %v after it",
		(old.Last - h.At).Round(time.Millisecond), (next.Start - h.At).Round(time.Millisecond))
	assert.GreaterOrEqual(t, next.Start, h.Seen+unhurried, "nobody starts before the lease has run out")
	heal()
	h.Await(space.StartTimeout, "the old pod waits", func() bool {
		pod := h.Pod(h.Victim.Name)
		return pod == nil || process.Find(pod, process.Waiter) != nil && process.Find(pod, process.Child) == nil
	})
	assert.Equal(t, next.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the healed pod disturbs nobody")
}

// The application runs in every pod, and one pod serves.
//
// docs/reference/compatibility.md: gates/readiness carried
func TestReadinessGateLetsOnePodServe(t *testing.T) {
	cluster.NeedLab(t, "it signals processes of pods")
	t.Parallel()
	s := space.New(t)
	a := insistent("serving", api.GateReadiness)
	a.Record = "$(POD_NAME)" // each pod has a record of its own
	// A pod that loses its slot may write its pod condition later than the next holder does.
	// Meanwhile two pods would be allowed to serve. The lasting lease prevents such losses.
	a.Annotations[api.LeaseDurationAnnotation] = lease.Lasting.String()
	app.Create(s, a)
	service := app.Service(s, a)
	slot := lease.OfDeployment(a.Name)
	app.AwaitGated(s, a)
	asked := func() string {
		body, err := s.Client.CoreV1().Services(s.Namespace).ProxyGet("http", service.Name, "80", "/", nil).DoRaw(t.Context())
		var meta record.Meta
		if err != nil || json.Unmarshal(body, &meta) != nil {
			return ""
		}
		return meta.Pod
	}
	// shown returns the pods whose pod condition lets them serve, and fails the test if several
	// pods may serve. Await and Never below evaluate their functions again and again, and each
	// evaluation calls shown.
	shown := func() (names []string) {
		for _, pod := range s.Pods(a.Name) {
			if status.Condition(pod, api.ReadyCondition) && pod.DeletionTimestamp == nil {
				names = append(names, pod.Name)
			}
		}
		assert.LessOrEqual(s, len(names), 1, "two may serve: %v", names)
		return names
	}
	serving := func(other string) *corev1.Pod {
		t.Helper()
		var holder *corev1.Pod
		s.Await(space.StartTimeout, "the Service answers from the holder alone", func() bool {
			names := shown()
			holder = s.Holder(slot)
			return holder != nil && len(names) == 1 && names[0] == holder.Name && holder.Name != other &&
				slices.Equal(app.Endpoints(s, service), []string{holder.Name}) && asked() == holder.Name
		})
		// The kubelet has applied the pod condition, and the endpoints have changed. So the
		// proxies now send requests only to the holder.
		s.Never(time.Second, "an answer from a standby", func() bool {
			answer := asked()
			shown()
			return answer != holder.Name && answer != ""
		})
		return holder
	}
	first := serving("")
	for _, pod := range s.Pods(a.Name) {
		s.Await(space.Soon, "it runs in each pod", func() bool { return process.Find(pod, process.Child) != nil })
		assert.Len(t, pod.Spec.InitContainers, 1, "nothing but the agent")
	}
	process.MustSignal(s, first, process.Agent, unix.SIGUSR1)
	second := serving(first.Name)
	app.DeletePod(s, second)
	serving(second.Name)
	for _, pod := range s.Pods(a.Name) {
		if pod.UID == first.UID {
			assert.Zero(t, agentRestarts(pod))
		}
	}
	assert.Zero(t, app.Restarts(s, a), "nothing was stopped")
}
