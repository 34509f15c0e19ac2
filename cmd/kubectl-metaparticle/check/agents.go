// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/diagnosis"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// trouble names pods that do not run, or whose agents do not work, although their applications are not the cause. Without
// such a pod the check does not apply.
func (c Cluster) trouble(ctx context.Context) (Finding, error) {
	namespaces, err := optedIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var says []string
	var first *diagnosis.Finding
	pods := map[reason.Reason][]string{}
	for _, namespace := range namespaces {
		gated, err := c.gated(ctx, namespace)
		if err != nil {
			return Finding{}, err
		}
		suspect := func(pod corev1.Pod) bool { return diagnosis.Suspect(&pod) != "" }
		if !slices.ContainsFunc(gated, suspect) {
			continue
		}
		usable, err := c.usable(ctx, namespace)
		if err != nil {
			return Finding{}, err
		}
		for i := range gated {
			l := diagnosis.Leases{Missing: diagnosis.Missing(&gated[i], usable)} // which another check names
			if f := diagnosis.OfPod(&gated[i], l, c.Now); f != nil && diagnosis.Ours(f.Reason) {
				pods[f.Reason] = append(pods[f.Reason], namespace+"/"+gated[i].Name)
				if first == nil {
					first = f
				}
			}
		}
	}
	if first == nil {
		return Finding{}, nil
	}
	for _, e := range diagnosis.Explained() {
		if names := pods[e.Reason]; len(names) > 0 {
			says = append(says, fmt.Sprintf("%s: %s: %s", e.Reason, strings.TrimSuffix(e.Meaning, "."), some(names)))
		}
	}
	return found(Failed, first.Do+": "+first.Run, "%s", strings.Join(says, "; "))
}
