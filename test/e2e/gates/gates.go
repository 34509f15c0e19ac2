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

// rebuilt bounds what the kubelet takes to restart all containers of a pod: the 30 s
// of the pod's grace if one does not end when it is told to, and what comes by
// itself: it looks at containers once a second, removes, and begins anew.
const rebuilt = 30*time.Second + space.Soon

// insistent is an application of two replicas that ends at once unless it is
// PID 1 of its container, behind a gate. The shortest lease leaves the kubelet of a
// busy machine five seconds.
func insistent(name string, gate api.Gate) app.App {
	a := app.Suffering(name)
	a.Replicas = 2
	a.Annotations[api.GateAnnotation] = string(gate)
	a.Args = []string{"-pid1"}
	return a
}

// deployInFront creates the Deployment, and waits until one pod runs and the
// others wait in their init containers.
func deployInFront(t *testing.T, a app.App) holder.Holder {
	t.Helper()
	l := cluster.NeedLab(t, "it signals processes of pods")
	s := space.New(t)
	app.Create(s, a)
	h := holder.Holder{Space: s, App: a, Lab: l, Before: app.AwaitRunning(s, a, space.StartTimeout)}
	awaitInFront(&h)
	return h
}

// awaitInFront waits until one pod runs the application and all others wait.
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
	slot := lease.OfDeployment(h.App.Name)
	h.Await(space.Soon, "the holder is Ready", func() bool { return status.Condition(h.Pod(h.Victim.Name), corev1.PodReady) })

	for _, c := range h.Victim.Spec.Containers {
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
	// Before anybody takes the thief's slot for expired.
	h.Await(lease.Fault, "the holder's application is dead", func() bool { return app.Vacant(h.Space, h.App.Name) })
	lease.GiveBack(h.Space, slot)
	h.Await(lease.Fault+rebuilt, "somebody runs again", func() bool { return app.After(h.Space, h.App, h.Before) != nil })

	awaitInFront(&h)
	app.DeletePod(h.Space, h.Victim)
	h.Await(lease.Fault+space.Soon, "another takes over", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	assert.Greater(t, app.VacancyAfter(h.Space, h.App, h.Before), lease.Fault/2, "nothing proves a death, so the slot expires")
}

// The agent's process is not the application's life: killed alone it is
// restarted alone, and the hold goes on; an application that crashes is
// restarted by the kubelet in its own container, under the same hold.
func TestGatePodAgentAndApplicationAreRestartedAlone(t *testing.T) {
	t.Parallel()
	a := insistent("alone", api.GatePod)
	// Nothing here is about losses: where a kubelet took twelve seconds to start the
	// agent again, that came too late for a short lease, and all were restarted.
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

// Half a note is what a crash of the machine may leave. A new agent process does
// not know from it until when the application may run.
func TestGatePodWhoseNoteCannotBeReadBeginsAnew(t *testing.T) {
	t.Parallel()
	h := deployInFront(t, insistent("unreadable", api.GatePod))
	a := process.Find(h.Victim, process.Agent)
	require.NotNil(t, a)
	require.True(t, a.Signal(unix.SIGSTOP), "each renewal writes the note")
	note := fmt.Sprintf("/proc/%d/root%s/let-start", a.PID, api.RunPath)
	require.NoError(t, os.Truncate(note, 10))
	require.True(t, a.Signal(unix.SIGKILL))
	h.Await(rebuilt, "the application is dead", func() bool { return app.Vacant(h.Space, h.App.Name) })
	h.Await(rebuilt, "the pod stands by", func() bool { return process.Find(h.Victim, process.Waiter) != nil })
	h.Await(lease.Fault+rebuilt, "somebody runs again", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	assert.Greater(t, app.VacancyAfter(h.Space, h.App, h.Before), time.Duration(0))
	awaitInFront(&h)
}

// Nothing in the pod enforces the deadline: the kubelet does, which needs no API
// server for it.
func TestGatePodCutOffTheKubeletStopsItBeforeAnotherStarts(t *testing.T) {
	h := deployInFront(t, insistent("insistent-cut", api.GatePod))
	var heal func()
	h.Suffers(func() { heal = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.Cut, h.Lab.Heal) })
	var next *record.Process
	h.Await(lease.Fault+space.Soon, "another takes over", func() bool { next = app.After(h.Space, h.App, h.Before); return next != nil })
	old := h.Process(h.Before.ID)
	t.Logf("dead %v after the cut, the next one started %v after it",
		(old.Last - h.At).Round(time.Millisecond), (next.Start - h.At).Round(time.Millisecond))
	assert.GreaterOrEqual(t, next.Start, h.Seen+lease.Fault, "nobody starts before the lease has run out")
	heal()
	h.Await(space.StartTimeout, "the old pod waits", func() bool {
		pod := h.Pod(h.Victim.Name)
		return pod == nil || process.Find(pod, process.Waiter) != nil && process.Find(pod, process.Child) == nil
	})
	assert.Equal(t, next.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the healed pod disturbs nobody")
}

// The application runs in every pod, and one of them serves.
//
// compat: gates/readiness carried
func TestGateReadinessOneOfThemServes(t *testing.T) {
	cluster.NeedLab(t, "it signals processes of pods")
	t.Parallel()
	s := space.New(t)
	a := insistent("serving", api.GateReadiness)
	a.Record = "$(POD_NAME)" // each is alone under its own name
	// Who loses a slot cannot always say so before the next one is shown.
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
	// shown are the pods of which our condition says that they may serve. Their
	// number is looked at whenever anything changes.
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
		// What the cluster's proxies have learnt of, kubelet after condition and
		// endpoint after kubelet, holds from here on.
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
