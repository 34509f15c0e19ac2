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
	corev1 "k8s.io/api/core/v1"

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
