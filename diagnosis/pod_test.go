// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package diagnosis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// gated returns a gated pod whose agent has run for a minute, and has said nothing.
func gated(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a", Labels: map[string]string{api.GatedLabel: api.Gated}}}
	p.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Command: []string{api.ShimProgram, api.ExecRole}}}
	p.Status.Phase = corev1.PodRunning
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
		Name: api.AgentContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(noon.Add(-time.Minute))}},
	}}
	change(p)
	return p
}

// A cache that keeps only [Kept] must judge a pod as the API server's object is judged.
func TestFindingsOfPods(t *testing.T) {
	waits := func(why, message string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{
				{Name: "log", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
				{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why, Message: message}}},
			}
		}
	}
	spoken := corev1.PodCondition{Type: api.ReadyCondition, Status: corev1.ConditionFalse, Reason: "NoHolder"}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		leases Leases
		now    time.Time
		reason reason.Reason
		says   string
	}{
		"silent": {reason: AgentSilent, says: "its agent has run since 2026-01-02T11:59:00Z without a word to the API server, so the application waits. " +
			"Often a NetworkPolicy forbids egress to the API server, or a proxy or mesh is in between"},
		"silent for a short time": {now: noon.Add(-31 * time.Second)},
		"without a clock":         {now: time.Time{}.Add(1)},
		"silent, and holds":       {leases: Leases{Held: true}},
		"without a Lease": {leases: Leases{Missing: "lock.a"}, reason: NoLease,
			says: "its slot lock.a has no Lease, because enroll has not made it, so the application waits"},
		"just begun, without a Lease": {leases: Leases{Missing: "lock.a"}, now: noon.Add(-31 * time.Second)},
		"deleted":                     {change: func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: noon} }},
		"spoken":                      {change: func(p *corev1.Pod) { p.Status.Conditions = []corev1.PodCondition{spoken} }},
		"program":                     {change: func(p *corev1.Pod) { p.Spec.InitContainers[0].Args = []string{api.LocalRole} }},
		"no gate":                     {change: func(p *corev1.Pod) { p.Labels = nil }},
		"evicted": {reason: PodFailed, says: "it has failed: Evicted: no memory", change: func(p *corev1.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "no memory"
		}},
		"no node": {reason: NoNode, says: "no node has it: Unschedulable: 0/3 nodes", change: func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes"}}
		}},
		"image":   {reason: ContainerStopped, says: "its container app does not run: ErrImagePull: not found", change: waits("ErrImagePull", "not found")},
		"crashes": {reason: ContainerStopped, says: "its container app does not run: CrashLoopBackOff", leases: Leases{Held: true}, change: waits(backsOff, "back-off 10s")},
		"crashed": {reason: ContainerStopped, says: "its container app does not run: CrashLoopBackOff after exit code 137 (OOMKilled), restart 3", change: func(p *corev1.Pod) {
			waits(backsOff, "back-off 10s")(p)
			p.Status.ContainerStatuses[1].RestartCount = 3
			p.Status.ContainerStatuses[1].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
		}},
		"starts": {reason: AgentSilent, change: waits("PodInitializing", "")},
		"ended": {reason: ContainerStopped, says: "its init container init has ended with exit code 1", change: func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, corev1.ContainerStatus{
				Name: "init", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}},
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.change == nil {
				c.change = func(*corev1.Pod) {}
			}
			if c.now.IsZero() {
				c.now = noon
			}
			pod := gated(c.change)
			f := OfPod(pod, c.leases, c.now)
			if c.reason == "" {
				assert.Nil(t, f)
			} else if assert.NotNil(t, f) {
				assert.Equal(t, c.reason, f.Reason)
				if c.says != "" {
					assert.Equal(t, "pod a: "+c.says, f.String())
				}
				assert.Contains(t, f.Run, "kubectl -n shop ")
				assert.NotEmpty(t, f.Do)
			}
			kept := pod.DeepCopy()
			kept.Status = Kept(pod)
			assert.Equal(t, f, OfPod(kept, c.leases, c.now))
			assert.Equal(t, kept.Status, Kept(kept))
		})
	}
}

func TestOnlyFaultsOfOthersThanTheApplicationAreSuspected(t *testing.T) {
	silent := gated(func(*corev1.Pod) {})
	assert.Equal(t, AgentSilent, Suspect(silent))
	assert.True(t, Ours(AgentSilent))
	assert.Equal(t, noon.Add(-30*time.Second), Due(silent))
	note := EventNote(AgentSilent, silent, Leases{})
	assert.Contains(t, note, ": kubectl -n shop logs a -c metaparticle-agent")
	assert.Less(t, len(note), 1024, "the longest note of an Event")
	assert.Empty(t, EventNote(AgentSilent, silent, Leases{Held: true}), "only its condition is refused")
	assert.Empty(t, EventNote(AgentSilent, silent, Leases{Missing: "lock.a"}), "another Event says why enroll has made nothing")
	silent.Annotations = map[string]string{api.SlotsAnnotation: "variable,lock.a,lock.b"}
	assert.Equal(t, "lock.b", Missing(silent, func(slot string) bool { return slot == "lock.a" }))

	evicted := gated(func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" })
	assert.Empty(t, Suspect(evicted))
	assert.False(t, Ours(PodFailed))
	assert.Zero(t, Due(evicted))
}

func TestRefusalsInShort(t *testing.T) {
	const policy = `pods "new-x1" is forbidden: ValidatingAdmissionPolicy 'metaparticle-gate' denied request: OptedOut: remove it (https://x/y#optedout). Then again`
	assert.Equal(t, "OptedOut: remove it (https://x/y#optedout). Then again", Refusal(policy))
	assert.Equal(t, "OptedOut: remove it", Brief(policy))
	assert.Equal(t, "exceeded quota: pods", Refusal(`(combined from similar events): pods "b" is forbidden: exceeded quota: pods`))
}

func TestCommandsNameOnlyPlainWords(t *testing.T) {
	assert.Equal(t, "kubectl metaparticle explain -n shop pod/a", Command("shop", "pod/a", "metaparticle", "explain"))
	for _, evil := range []string{"$(id)", "a;b", "-n", ""} {
		assert.Empty(t, Command("shop", evil, "metaparticle", "explain"), evil)
	}
}
