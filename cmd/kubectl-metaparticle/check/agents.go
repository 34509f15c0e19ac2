// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// agents names pods whose agents have never stored a condition, so that nobody runs the application. Without such a pod
// the check does not apply.
func (c Cluster) agents(ctx context.Context) (Finding, error) {
	namespaces, err := optedIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var silent []string
	for _, namespace := range namespaces {
		pods, err := c.gated(ctx, namespace)
		if err != nil {
			return Finding{}, err
		}
		for _, pod := range pods {
			if view.SilentAgent(pod, c.Now) != "" {
				silent = append(silent, namespace+"/"+pod.Name)
			}
		}
	}
	if len(silent) == 0 {
		return Finding{}, nil
	}
	return found(Failed, "let these pods connect to the API server ("+api.Repository+"docs/operate/network.md#egress-of-gated-pods); kubectl -n NAMESPACE logs POD -c "+api.AgentContainer+" has the error",
		"agents have said nothing since they started, so the applications of these pods wait: %s", some(silent))
}
