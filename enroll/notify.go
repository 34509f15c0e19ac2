// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// NotGated is the reason of the Event on a workload that claims while its pods
// have no gate.
const NotGated = "NotGated"

// Recorder writes Events. The reason is in CamelCase, and the note is a sentence.
type Recorder interface {
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any)
}

// byNamespace keeps a map for each namespace. At most one worker reconciles a namespace at a time, so
// a map needs no lock, once the worker has it.
type byNamespace[K comparable, V any] struct {
	mu  sync.Mutex
	all map[string]map[K]V
}

func (n *byNamespace[K, V]) in(namespace string) map[K]V {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all[namespace]
}

// set replaces the map of a namespace.
func (n *byNamespace[K, V]) set(namespace string, of map[K]V) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[string]map[K]V{}
	}
	if n.all[namespace] = of; len(of) == 0 {
		delete(n.all, namespace)
	}
}

func (n *byNamespace[K, V]) forget(namespace string) { n.set(namespace, nil) }

// notifier writes Events for users, if there is a Recorder. It remembers the objects that have an Event
// already, until they no longer exist.
type notifier struct {
	// notGated are the workloads that have an Event NotGated.
	notGated byNamespace[types.UID, bool]
	// tooMany are the pods and workloads that have an Event TooManySlots.
	tooMany byNamespace[types.UID, bool]
	// notForwarded are the Services that have an Event ServiceNotForwarded.
	notForwarded byNamespace[types.UID, bool]
	// apart are the pods and workloads that have an Event OwnSlot.
	apart byNamespace[types.UID, bool]
}

func (n *notifier) forget(namespace string) {
	n.notGated.forget(namespace)
	n.tooMany.forget(namespace)
	n.notForwarded.forget(namespace)
	n.apart.forget(namespace)
}

// notifyNotGated writes an Event on each workload that claims and is not gated. Such a workload was
// annotated before the namespace opted in. Enroll does not restart the workload, because the
// workload's owner must choose the time. Each process writes one such Event on a workload, and
// another Event if the namespace opts in again.
func (n *notifier) notifyNotGated(ctx context.Context, events Recorder, s store, seen *snapshot) error {
	if events == nil {
		return nil
	}
	already := n.notGated.in(seen.namespace)
	claimed := map[types.UID]bool{}
	var fresh []workload
	for _, w := range seen.workloads {
		if !meant(w.effective()) {
			continue
		}
		claimed[w.object.GetUID()] = true
		if !already[w.object.GetUID()] {
			fresh = append(fresh, w)
		}
	}
	ungated, err := s.ungatedWorkloads(ctx, seen.namespace, fresh)
	if err != nil {
		return err
	}
	n.notGated.set(seen.namespace, claimed)
	for _, w := range ungated {
		events.Eventf(w.object, nil, corev1.EventTypeWarning, NotGated, "Enroll",
			"This %s claims a slot, but was annotated before the namespace opted in: its pods run without a gate. %s",
			w.group.Kind, w.remedy())
	}
	return nil
}

// ungatedWorkloads returns the workloads that claim and have pods without a gate. There are two
// causes. Either the webhook has not carried the workload's annotation to the template, or the pods
// are older than the policy that refuses such pods.
func (s store) ungatedWorkloads(ctx context.Context, namespace string, workloads []workload) ([]workload, error) {
	var (
		ungated, unsure []workload
		selectors       []labels.Selector
	)
	for _, w := range workloads {
		switch {
		case !meant(w.template.Annotations):
			ungated = append(ungated, w)
		case w.selector != nil:
			selector, err := metav1.LabelSelectorAsSelector(w.selector)
			if err != nil {
				return nil, fmt.Errorf("selector of %s: %w", w.group, err)
			}
			unsure, selectors = append(unsure, w), append(selectors, selector)
		}
	}
	if len(unsure) == 0 {
		return ungated, nil
	}
	selected, err := s.selectUngated(ctx, namespace, selectors)
	if err != nil {
		return nil, err
	}
	for i, w := range unsure {
		if selected[i] {
			ungated = append(ungated, w)
		}
	}
	return ungated, nil
}

// remedy returns the instruction by which the workload's next pods get a gate.
func (w workload) remedy() string {
	name := strings.ToLower(w.group.Kind) + "/" + w.group.Name
	if w.selector == nil {
		return fmt.Sprintf("Any change to it gates its next Jobs: take its claim off and put it on again, with kubectl -n %s edit %s",
			w.object.GetNamespace(), name)
	}
	return fmt.Sprintf("kubectl -n %s rollout restart %s", w.object.GetNamespace(), name)
}

// excess is a Lease or a Variable for which the Roles of a service account have no room.
type excess struct {
	// first is the first pod or workload that needs the Lease or the Variable.
	first   client.Object
	problem string
}

// notifyTooMany writes an Event about a Lease or a Variable that finds no room in the Roles of a
// service account. The Event is on the first pod or workload that needs the Lease or the Variable.
// Each process writes one Event for each such pod or workload.
func (n *notifier) notifyTooMany(events Recorder, namespace string, left []excess) {
	if events == nil {
		return
	}
	already := n.tooMany.in(namespace)
	waiting := map[types.UID]bool{}
	for _, e := range left {
		uid := e.first.GetUID()
		if !already[uid] && !waiting[uid] {
			events.Eventf(e.first, nil, corev1.EventTypeWarning, TooManySlots, "Enroll",
				"%s. Give workloads service accounts of their own, or delete what is not needed.", e.problem)
		}
		waiting[uid] = true
	}
	n.tooMany.set(namespace, waiting)
}

// ServiceNotForwarded is the reason of the Event on a Service that sends connections to a port which
// Ready standbys do not forward.
const ServiceNotForwarded = "ServiceNotForwarded"

// notifyUnforwarded writes an Event on each Service that sends connections to a port which the standbys
// of its pods do not forward. Each process writes one such Event on a Service, and another one if the
// fault comes again.
func (n *notifier) notifyUnforwarded(ctx context.Context, events Recorder, s store, namespace string, until *stint) error {
	if events == nil {
		return nil
	}
	var services corev1.ServiceList
	if err := s.client.List(ctx, &services, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	var pods []*corev1.Pod
	if len(services.Items) > 0 {
		if err := s.cachedPods(ctx, namespace, func(pod *corev1.Pod) { pods = append(pods, pod) }); err != nil {
			return err
		}
	}
	already, now := n.notForwarded.in(namespace), map[types.UID]bool{}
	standbys := podspec.StandbysOf(pods)
	for _, service := range anyFirst(services.Items) {
		if until.over() { // thousands of Services of one namespace must not keep the others waiting
			now[service.UID] = already[service.UID]
			continue
		}
		r, refused := podspec.RefusedOf(&service, standbys)
		if !refused {
			continue
		}
		if !already[r.Service.UID] {
			events.Eventf(r.Service, nil, corev1.EventTypeWarning, ServiceNotForwarded, "Enroll",
				"This Service sends connections to port %d/%s of pods such as %s. Their standbys are Ready, and refuse these connections, because they do not forward the port. "+
					"Name the port in metaparticle.io/ports, or set metaparticle.io/readiness: holder.",
				r.Number, r.Protocol, r.Pod)
		}
		now[r.Service.UID] = true
	}
	n.notForwarded.set(namespace, now)
	return nil
}
