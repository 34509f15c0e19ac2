// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// snapshot is the state of a namespace in the caches.
type snapshot struct {
	step.Facts
	namespace string
	optedIn   bool
	wanted    claims // contains Facts.Claims
	awaited   needs
	used      needs
	shards    shardedGroups
	workloads []workload
	// controlled are the workloads that another object controls, such as an operator's.
	controlled map[api.Workload]client.Object
	// bare are the pods without a controller that have a singleton of their own.
	bare []*corev1.Pod
	// suspects are the pods that may deserve an Event, by uid and reason. The youngest pod whose agent does not run yet was
	// created at the instant youngest; zero without such a pod.
	suspects map[string]*corev1.Pod
	youngest time.Time
	roles    *agentRoles // contains Facts.Roles
	bindings []rbacv1.RoleBinding
}

// coverage tells which pods of a namespace the webhook gates.
type coverage int

const (
	// coversNone means that the webhook gates no pod of the namespace. Then claims and conditions of
	// its pods have no effect.
	coversNone coverage = iota
	// coversGated means that the namespace has not opted in. Then only pods that already have a gate
	// count.
	coversGated
	// coversAll means that the namespace has opted in.
	coversAll
)

// snapshot reads the state of a namespace from the caches.
func (s store) snapshot(ctx context.Context, namespace string, covers coverage) (*snapshot, error) {
	optedIn := covers == coversAll
	seen := &snapshot{
		namespace: namespace, optedIn: optedIn, wanted: newClaims(), awaited: needs{}, used: needs{}, shards: shardedGroups{},
	}
	var err error
	if covers != coversNone {
		err = s.cachedPods(ctx, namespace, func(pod *corev1.Pod) {
			seen.wanted.addPod(pod, optedIn)
			seen.wanted.addBarriers(pod)
			account := pod.Spec.ServiceAccountName
			seen.awaited.add(pod, account, awaitedBy(pod))
			seen.addSuspect(pod)
			if isBare(pod) {
				seen.bare = append(seen.bare, pod)
			}
			if claimFieldsOf(pod).counts(optedIn) {
				seen.used.add(pod, account, variablesOf(pod))
				seen.shards.addPod(pod)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if optedIn {
		if seen.workloads, seen.controlled, err = s.workloads(ctx, namespace); err != nil {
			return nil, err
		}
		seen.addWorkloads()
	}
	if seen.Leases, err = s.leases(ctx, namespace); err != nil {
		return nil, err
	}
	if seen.roles, err = s.cachedRoles(ctx, namespace); err != nil {
		return nil, err
	}
	if seen.bindings, err = s.bindings(ctx, namespace); err != nil {
		return nil, err
	}
	seen.roles.markBound(seen.bindings)
	seen.Claims, seen.Roles = seen.wanted.Claims, &seen.roles.Roles
	return seen, nil
}

// addWorkloads adds the claims, the conditions and the Variables of the pods that workloads are
// going to create.
func (s *snapshot) addWorkloads() {
	for _, w := range s.workloads {
		request, err := api.Parse(w.effective())
		if err != nil {
			continue
		}
		s.wanted.addWorkload(w, request)
		s.shards.addWorkload(w, request)
		s.awaited.add(w.object, w.template.Spec.ServiceAccountName, leasesOf(request.After))
		s.used.add(w.object, w.template.Spec.ServiceAccountName, request.Variables())
	}
}

// paused returns for each value of [api.Pause] how many slots have this pause. A value that this
// version does not know has the effect of [api.PauseHold], and counts as that pause.
func (s *snapshot) paused() map[api.Pause]int {
	slots := map[api.Pause]int{}
	for name, lease := range s.Leases {
		pause := api.PauseOf(lease.Annotations)
		if pause == "" || !api.IsSlot(name) {
			continue
		}
		if !pause.Known() {
			pause = api.PauseHold
		}
		slots[pause]++
	}
	return slots
}
