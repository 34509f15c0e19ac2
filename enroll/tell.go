// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// NotGated is the reason of the Event on a workload that claims while its pods
// have no gate.
const NotGated = "NotGated"

// told remembers whose owners were told something, by namespace. It forgets what
// is there no longer.
type told struct {
	mu   sync.Mutex
	told map[string]map[types.UID]bool
}

// already returns those of a namespace that were told. It is not changed later.
func (t *told) already(namespace string) map[types.UID]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.told[namespace]
}

// are replaces those of a namespace that were told.
func (t *told) are(namespace string, uids map[types.UID]bool) {
	if len(uids) == 0 {
		t.forget(namespace)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told == nil {
		t.told = map[string]map[types.UID]bool{}
	}
	t.told[namespace] = uids
}

func (t *told) forget(namespace string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.told, namespace)
}

// tellNotGated writes an Event on each workload that claims and is not gated,
// because it was annotated before the namespace opted in. Nobody but its owner may
// restart it. Each is told once in the life of this process, and once more where
// the namespace opts in again.
func (r *Reconciler) tellNotGated(ctx context.Context, l *look) error {
	if r.Events == nil {
		return nil
	}
	already := r.notGated.already(l.namespace)
	claim := map[types.UID]bool{}
	var news []workload
	for _, w := range l.workloads {
		if !claiming(w.effective()) {
			continue
		}
		claim[w.object.GetUID()] = true
		if !already[w.object.GetUID()] {
			news = append(news, w)
		}
	}
	ungated, err := r.ungated(ctx, l.namespace, news)
	if err != nil {
		return err
	}
	r.notGated.are(l.namespace, claim)
	for _, w := range ungated {
		r.Events.Eventf(w.object, nil, corev1.EventTypeWarning, NotGated, "Enroll",
			"This %s claims a slot, but was annotated before the namespace opted in: its pods run without a gate. %s",
			w.group.Kind, w.remedy())
	}
	return nil
}

// ungated returns the workloads that claim and have pods without a gate. The template
// of such a workload lacks the annotation, which nobody was there to carry, or its
// pods claim and are from before the policy that refuses them.
func (r *Reconciler) ungated(ctx context.Context, namespace string, workloads []workload) ([]workload, error) {
	var (
		ungated, unsure []workload
		selectors       []labels.Selector
	)
	for _, w := range workloads {
		switch {
		case !claiming(w.template.Annotations):
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
	pods, err := r.ungatedPods(ctx, namespace)
	if err != nil {
		return nil, err
	}
	for i, w := range unsure {
		if slices.ContainsFunc(pods, selectors[i].Matches) {
			ungated = append(ungated, w)
		}
	}
	return ungated, nil
}

// ungatedPods are the labels of the pods of a namespace that claim and have no
// gate. There are few: only those from before the installation.
func (r *Reconciler) ungatedPods(ctx context.Context, namespace string) ([]labels.Labels, error) {
	without, err := labels.NewRequirement(api.GatedLabel, selection.DoesNotExist, nil)
	if err != nil {
		return nil, fmt.Errorf("select pods without a gate: %w", err)
	}
	var (
		pods    metav1.PartialObjectMetadataList
		claimed []labels.Labels
	)
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	err = eachPage(ctx, r.Reader, &pods, func() {
		for i := range pods.Items {
			if claiming(pods.Items[i].Annotations) {
				claimed = append(claimed, labels.Set(pods.Items[i].Labels))
			}
		}
	}, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: labels.NewSelector().Add(*without)})
	if err != nil {
		return nil, fmt.Errorf("list pods without a gate: %w", err)
	}
	return claimed, nil
}

// remedy is what makes the workload's next pods gated.
func (w workload) remedy() string {
	name := strings.ToLower(w.group.Kind) + "/" + w.group.Name
	if w.selector == nil {
		return fmt.Sprintf("Any change to it gates its next Jobs: take its claim off and put it on again, with kubectl -n %s edit %s",
			w.object.GetNamespace(), name)
	}
	return fmt.Sprintf("kubectl -n %s rollout restart %s", w.object.GetNamespace(), name)
}

// tellTooMany writes an Event on a pod or workload of each slot for which its
// service account has no room, once in the life of this process.
func (r *Reconciler) tellTooMany(l *look) {
	if r.Events == nil {
		return
	}
	already := r.tooMany.already(l.namespace)
	waiting := map[types.UID]bool{}
	for _, slot := range l.left {
		first := l.wanted[slot].first
		if !already[first.GetUID()] && !waiting[first.GetUID()] {
			r.Events.Eventf(first, nil, corev1.EventTypeWarning, TooManySlots, "Enroll",
				"Slot %s waits: its service account claims more than %d slots in this namespace. "+
					"Give workloads service accounts of their own, or delete what is not needed.",
				slot, slotsPerRole*rolesPerAccount)
		}
		waiting[first.GetUID()] = true
	}
	r.tooMany.are(l.namespace, waiting)
}
