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
)

// Keep puts the marks of a gated pod back that an update leaves out, as one does that
// replaces all labels or annotations. The policy on marks would refuse such an update.
// A mark with another value stays as it came, for the policy to refuse; one on a pod
// without a gate may go.
func Keep(raw, old []byte) ([]jsonpatch.Operation, Refusals, error) {
	if len(old) == 0 {
		return nil, nil, nil
	}
	now, before := new(corev1.Pod), new(corev1.Pod)
	for pod, text := range map[*corev1.Pod][]byte{now: raw, before: old} {
		if err := json.Unmarshal(text, pod); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if !podspec.HasGate(&before.Spec) {
		return nil, nil, nil
	}
	d, err := open(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var warnings Refusals
	keep := func(field, key string, before, now map[string]string) {
		was, had := before[key]
		if _, has := now[key]; had && !has {
			d.set(was, "metadata", field, key)
			warnings.add(MarksKept, "%s", key)
		}
	}
	keep("labels", api.GatedLabel, before.Labels, now.Labels)
	keep("annotations", api.SlotsAnnotation, before.Annotations, now.Annotations)
	return d.ops, warnings, nil
}
