// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// claim is what a namespace asks of one Lease.
type claim struct {
	// duration is the longest that anybody asks for.
	duration time.Duration
	// accounts are the service accounts of those who ask.
	accounts map[string]bool
}

// claims are all that a namespace asks for, by the Lease's name.
type claims map[string]*claim

func (c claims) add(account string, duration time.Duration, slots ...string) {
	if account == "" {
		account = "default"
	}
	if duration == 0 {
		duration = api.DefaultLeaseDuration
	}
	// An annotation of a living pod can be changed to what no webhook let pass.
	duration = min(max(duration, api.MinLeaseDuration), api.MaxLeaseDuration)
	for _, slot := range slots {
		if !api.IsSlot(slot) {
			// No right on any other Lease is ever given, whatever pods say.
			continue
		}
		if c[slot] == nil {
			c[slot] = &claim{accounts: map[string]bool{}}
		}
		c[slot].duration = max(c[slot].duration, duration)
		c[slot].accounts[account] = true
	}
}

func (c claims) slots() []string { return slices.Sorted(maps.Keys(c)) }

// addPods adds what gated pods ask for, by what the webhook wrote on them. A
// pod that has ended asks for nothing; one that is about to end still does.
//
// In a namespace that is not opted in (any more), only what nobody can put on a
// living pod counts: the gate itself.
func (c claims) addPods(pods []corev1.Pod, optedIn bool) {
	for i := range pods {
		pod := &pods[i]
		if !optedIn && !hasGate(pod) {
			continue
		}
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		// The webhook let it pass, so it parses; if not, the default is what
		// the agent assumes, too.
		duration, _ := time.ParseDuration(pod.Annotations[api.LeaseDurationAnnotation])
		c.add(pod.Spec.ServiceAccountName, duration, podSlots(pod)...)
	}
}

// readinessArg is the agent's argument that makes the pod's readiness its gate.
const readinessArg = "-gate=" + string(api.GateReadiness)

func isReady(g corev1.PodReadinessGate) bool { return g.ConditionType == api.ReadyCondition }

// hasGate: the pod has the agent, and what waits for it: a container, the
// kubelet, or the pod's readiness. Only what nobody can change on a living pod
// counts. The policy on marks knows the same.
func hasGate(pod *corev1.Pod) bool {
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.AgentContainer })
	if i < 0 {
		return false
	}
	waits := slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.WaitContainer })
	shows := slices.Contains(pod.Spec.InitContainers[i].Args, readinessArg) &&
		slices.ContainsFunc(pod.Spec.ReadinessGates, isReady)
	return waits || shows || slices.ContainsFunc(pod.Spec.Containers, shimmed)
}

func shimmed(c corev1.Container) bool {
	return len(c.Command) > 0 && c.Command[0] == api.AgentBinary
}

func podSlots(pod *corev1.Pod) []string {
	slots := strings.Split(pod.Annotations[api.SlotsAnnotation], ",")
	return slices.DeleteFunc(slots, func(slot string) bool { return slot == "" })
}

// addWorkloads adds what workloads will ask for as soon as they have pods, so
// that a first pod finds its Lease, and that one between two Jobs stays.
func (c claims) addWorkloads(workloads []workload) {
	for _, w := range workloads {
		request, err := api.Parse(w.effective())
		if err != nil || !request.Claims() {
			continue
		}
		c.add(w.template.Spec.ServiceAccountName, request.LeaseDuration, request.Slots(w.group)...)
	}
}

// gatedPods lists the pods that the webhook gated.
func gatedPods(ctx context.Context, from client.Reader, namespace string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := from.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{api.GatedLabel: api.Gated})
	if err != nil {
		return nil, fmt.Errorf("list gated pods: %w", err)
	}
	return pods.Items, nil
}
