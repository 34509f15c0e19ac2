// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"context"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// strictly makes the scheduler keep any two pods of the application on different nodes,
// as far as the number of nodes allows.
func strictly(template *corev1.PodTemplateSpec) {
	template.Spec.TopologySpreadConstraints[0].WhenUnsatisfiable = corev1.DoNotSchedule
}

// unreachable is the reason in the readiness condition of a standby that cannot connect to the
// holder.
const unreachable = "HolderUnreachable"

// forbid drops all packets from other nodes to the holder until the returned
// function is called, or until the test ends. A NetworkPolicy that forbids traffic
// between pods has the same effect, but the network of the test cluster enforces no
// NetworkPolicy. Pods on the holder's own node still connect to the holder.
func forbid(h *holder.Holder) (allow func()) {
	h.Helper()
	var nodes []string
	rules := func(ctx context.Context, verb string) {
		for _, node := range nodes {
			err := h.Lab.Exec(ctx, node, nil, io.Discard, os.Stderr, "ip", "rule", verb, "to", h.Victim.Status.PodIP, "priority", "100", "blackhole")
			assert.NoError(h, err, node)
		}
	}
	for _, node := range h.Lab.Nodes() {
		if node != h.Victim.Spec.NodeName {
			nodes = append(nodes, node)
		}
	}
	rules(h.Context(), "add")
	allow = func() {
		rules(context.WithoutCancel(h.Context()), "del")
		nodes = nil
	}
	h.Cleanup(allow)
	return allow
}

// readiness returns the readiness condition that a pod's agent has written.
func readiness(pod *corev1.Pod) (c corev1.PodCondition) {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == api.ReadyCondition {
			c = condition
		}
	}
	return c
}

// standbys returns the pods on other nodes than the holder's.
func standbys(h *holder.Holder) []*corev1.Pod {
	return slices.DeleteFunc(h.Pods(h.App.Name), func(pod *corev1.Pod) bool {
		return pod.DeletionTimestamp != nil || pod.Spec.NodeName == "" || pod.Spec.NodeName == h.Victim.Spec.NodeName
	})
}

// No agent polls the network path to the holder. A standby finds the path broken when it
// forwards a client's connection. A standby that starts while the path is broken tries
// the path once even without a client.
func TestUnreachableHolderMakesStandbysNotReady(t *testing.T) {
	t.Parallel()
	a := app.Lasting("forbidden")
	a.Edit = strictly
	deployed := holder.Deploy(t, a, "it drops packets on nodes")
	h := &deployed
	service := app.Service(h.Space, a)
	finished := func() {
		t.Helper()
		kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+a.Name, kubectl.RolloutTimeout)
	}
	finished()
	cut := standbys(h)
	require.NotEmpty(t, cut, "another node has a standby")

	allow := forbid(h)
	for _, pod := range cut {
		h.Await(space.StartTimeout, pod.Name+" says that the holder does not answer", func() bool {
			if readiness(h.Pod(pod.Name)).Reason == unreachable {
				return true
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := app.AskOnce(h.Space, ctx, pod)
			return assert.Error(t, err, "no path") && false
		})
		said := readiness(h.Pod(pod.Name))
		assert.Equal(t, corev1.ConditionFalse, said.Status)
		assert.Contains(t, said.Message, h.Victim.Name+" holds "+lease.OfDeployment(a.Name)+", and does not answer: reach port 8080: ")
	}
	app.DeletePod(h.Space, cut[0])
	h.Await(space.StartTimeout, "a new standby says so, too", func() bool {
		return h.Pod(cut[0].Name) == nil && slices.ContainsFunc(standbys(h), func(pod *corev1.Pod) bool {
			old := slices.ContainsFunc(cut, func(other *corev1.Pod) bool { return other.UID == pod.UID })
			return !old && readiness(pod).Reason == unreachable
		})
	})
	h.Await(space.Soon, "the Service sends nothing to them", func() bool {
		return !slices.ContainsFunc(standbys(h), func(pod *corev1.Pod) bool { return slices.Contains(app.Endpoints(h.Space, service), pod.Name) })
	})
	assert.Contains(t, app.Endpoints(h.Space, service), h.Victim.Name)

	allow()
	finished()
	assert.Equal(t, h.Before.ID, app.AwaitRunning(h.Space, a, space.Soon).ID, "the application ran on")
}

// A broken application holds a lock and ends after a second, again and again. At one of
// these ends the pod of another workload takes the lock, and keeps it.
func TestWaitingWorkloadTakesLockFromACrashingHolder(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	const lock = "ledger"
	broken, sound := app.Locked("broken", lock), app.Locked("sound", lock)
	// With the lasting lease a stalled machine costs the sound application no hold.
	sound.Annotations[api.LeaseDurationAnnotation] = lease.Lasting.String()
	broken.Args = []string{"-exit-code=1", "-run-for=1s"}
	app.Create(s, broken)
	ran := func(a app.App) func() bool {
		return func() bool {
			return slices.ContainsFunc(s.Record(lock), func(p record.Process) bool { return p.Parent == "" && ranIn(a, p) })
		}
	}
	s.Await(space.StartTimeout, "the broken application runs", ran(broken))
	app.Create(s, sound)
	s.Await(space.StartTimeout, "the other one runs", ran(sound))
	now := app.AwaitRunning(s, sound, space.Soon)
	require.True(t, ranIn(sound, *now))
	s.Never(lease.Takeover, "an end of it", func() bool { return app.After(s, sound, now) != nil })
}

// ranIn reports whether the process ran in a pod of the application's Deployment.
func ranIn(a app.App, p record.Process) bool {
	return len(p.Pod) > len(a.Name) && p.Pod[:len(a.Name)+1] == a.Name+"-"
}

// budgeted makes a PodDisruptionBudget that keeps one pod available, and an autoscaler
// whose target is higher than any CPU use.
func budgeted(h *holder.Holder) {
	h.Helper()
	one, beyondReach, replicas := intstr.FromInt32(1), int32(10_000), *h.App.Count()
	_, err := h.Client.PolicyV1().PodDisruptionBudgets(h.Namespace).Create(h.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: h.App.Name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: h.App.Selector()},
	}, metav1.CreateOptions{})
	require.NoError(h, err)
	_, err = h.Client.AutoscalingV2().HorizontalPodAutoscalers(h.Namespace).Create(h.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: h.App.Name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: h.App.Name},
			MinReplicas:    &replicas, MaxReplicas: replicas + 1,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &beyondReach},
			}}},
		},
	}, metav1.CreateOptions{})
	require.NoError(h, err)
}

// evicts evicts a pod as kubectl drain does. The function repeats its request until the
// PodDisruptionBudget allows the eviction, and then waits until the pod is gone.
func evicts(h *holder.Holder, pod *corev1.Pod) {
	h.Helper()
	h.Await(space.StartTimeout, "the budget allows the eviction of "+pod.Name, func() bool {
		return h.Client.PolicyV1().Evictions(h.Namespace).Evict(h.Context(), &policyv1.Eviction{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: h.Namespace},
		}) == nil
	})
	h.Await(space.StartTimeout, pod.Name+" is gone", func() bool { return h.Pod(pod.Name) == nil })
}

// installed reports whether Helm would end its wait for the Deployment. Helm waits until
// the controller has seen the pod template, and enough pods of the newest ReplicaSet are
// Ready.
func installed(h *holder.Holder) bool {
	d, err := h.Client.AppsV1().Deployments(h.Namespace).Get(h.Context(), h.App.Name, metav1.GetOptions{})
	require.NoError(h, err)
	unavailable, err := intstr.GetScaledValueFromIntOrPercent(d.Spec.Strategy.RollingUpdate.MaxUnavailable, int(*d.Spec.Replicas), false)
	require.NoError(h, err)
	sets, err := h.Client.AppsV1().ReplicaSets(h.Namespace).List(h.Context(), metav1.ListOptions{LabelSelector: "app=" + h.App.Name})
	require.NoError(h, err)
	const number = "deployment.kubernetes.io/revision"
	return d.Status.ObservedGeneration >= d.Generation && slices.ContainsFunc(sets.Items, func(rs appsv1.ReplicaSet) bool {
		return rs.Annotations[number] == d.Annotations[number] && int(rs.Status.ReadyReplicas) >= int(*d.Spec.Replicas)-unavailable
	})
}

// The test evicts two holders, one after the other, as kubectl drain does. Then a rollout finishes
// despite a PodDisruptionBudget, an autoscaler and a strict topology spread.
func TestRolloutFinishesDespiteDisruptionBudgetAndAutoscaler(t *testing.T) {
	t.Parallel()
	a := app.Lasting("budgeted")
	a.Replicas = 2
	a.Edit = strictly
	deployed := holder.Deploy(t, a, "it needs the record")
	h := &deployed
	budgeted(h)
	evicts(h, h.Victim)
	next := app.AwaitRunning(h.Space, a, space.StartTimeout)
	evicts(h, h.Pod(next.Pod))
	h.Await(space.StartTimeout, "a third pod runs the application", func() bool { return app.After(h.Space, a, next) != nil })

	before := record.Now()
	args(h, "-start-delay=200ms")
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+a.Name, kubectl.RolloutTimeout)
	h.Await(space.Soon, "Helm ends its wait", func() bool { return installed(h) })
	assert.Len(t, started(h, before), 1, "the application was stopped once")
}
