// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// NotGated is the reason of the Event on a workload that claims while its pods
// have no gate.
const NotGated = "NotGated"

// tell writes an Event on each workload that claims and is not gated, because
// it was annotated before the namespace opted in. Nobody but its owner may
// restart it. Each is told once in the life of this process.
func (r *Reconciler) tell(ctx context.Context, workloads []workload) error {
	if r.Events == nil {
		return nil
	}
	for _, w := range workloads {
		if !claiming(w.effective()) || !r.tellOnce(w) {
			continue
		}
		ungated, err := r.ungated(ctx, w)
		if err != nil {
			r.untell(w)
			return err
		}
		if ungated {
			r.Events.Eventf(w.object, nil, corev1.EventTypeWarning, NotGated, "Enroll",
				"This %s claims a slot, but was annotated before the namespace opted in: its pods run without a gate. %s",
				w.group.Kind, w.remedy())
		}
	}
	return nil
}

// ungated: its template does not claim although the workload does (an
// annotation made while nobody was there to carry it); or pods claim and have
// no gate (made before there was a policy to refuse them).
func (r *Reconciler) ungated(ctx context.Context, w workload) (bool, error) {
	if !claiming(w.template.Annotations) {
		return true, nil
	}
	if w.selector == nil {
		return false, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(w.selector)
	if err != nil {
		return false, fmt.Errorf("selector of %s: %w", w.group, err)
	}
	without, err := labels.NewRequirement(api.GatedLabel, selection.DoesNotExist, nil)
	if err != nil {
		return false, fmt.Errorf("select pods without a gate: %w", err)
	}
	pods := metav1.PartialObjectMetadataList{}
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	err = r.Reader.List(ctx, &pods, client.InNamespace(w.object.GetNamespace()),
		client.MatchingLabelsSelector{Selector: selector.Add(*without)})
	if err != nil {
		return false, fmt.Errorf("list pods of %s: %w", w.group, err)
	}
	for i := range pods.Items {
		if claiming(pods.Items[i].Annotations) {
			return true, nil
		}
	}
	return false, nil
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

// tellOnce is true the first time.
func (r *Reconciler) tellOnce(w workload) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		r.told = map[string]map[string]bool{}
	}
	namespace, name := w.object.GetNamespace(), w.group.String()
	if r.told[namespace] == nil {
		r.told[namespace] = map[string]bool{}
	}
	if r.told[namespace][name] {
		return false
	}
	r.told[namespace][name] = true
	return true
}

func (r *Reconciler) untell(w workload) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told[w.object.GetNamespace()], w.group.String())
}

// untellAll: a namespace that opts in again is looked at anew.
func (r *Reconciler) untellAll(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, namespace)
}
