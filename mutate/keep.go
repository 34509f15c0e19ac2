// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"fmt"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// Keep returns warnings, and the operations that restore the marks of a gated pod after an update.
// An update that replaces all labels or annotations leaves the marks out. Without Keep, an
// admission policy would refuse such an update. Keep does not restore a changed mark, so the policy
// refuses an update that changes a mark. An update may remove the marks of a pod without injected
// parts.
func Keep(raw, old []byte) ([]jsonpatch.Operation, reason.Refusals, error) {
	if len(old) == 0 {
		return nil, nil, nil
	}
	now, before := new(corev1.Pod), new(corev1.Pod)
	for pod, text := range map[*corev1.Pod][]byte{now: raw, before: old} {
		if err := json.Unmarshal(text, pod); err != nil {
			return nil, nil, Malformed(err)
		}
	}
	if !podspec.HasGate(&before.Spec) && len(podspec.ConditionsOf(&before.Spec)) == 0 && podspec.BarrierOf(&before.Spec).Leases() == nil {
		return nil, nil, nil
	}
	d, err := patch.Open(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var warnings reason.Refusals
	keep := func(field, key string, before, now map[string]string) {
		was, had := before[key]
		if _, has := now[key]; had && !has {
			d.Set(was, "metadata", field, key)
			warnings.Add(reason.MarksKept, "the update left out %s, and the webhook restored it", key)
		}
	}
	keep("labels", api.GatedLabel, before.Labels, now.Labels)
	keep("annotations", api.SlotsAnnotation, before.Annotations, now.Annotations)
	return d.Operations(), warnings, nil
}
