// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"strconv"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// tokens judges the tokens in the Leases. A token is the resourceVersion of an earlier write. So a
// token above the current resourceVersion comes from another cluster, or from the time before etcd
// was restored from a backup.
func (c Cluster) tokens(ctx context.Context) (Finding, error) {
	var list coordinationv1.LeaseList
	if err := c.List(ctx, &list, client.HasLabels{api.ManagedLabel}); err != nil {
		return Finding{}, err
	}
	revision, err := strconv.ParseUint(list.ResourceVersion, 10, 64)
	if err != nil {
		return Finding{}, fmt.Errorf("the API server's revision is no number: %w", err)
	}
	for _, l := range list.Items {
		if token, err := strconv.ParseUint(l.Annotations[api.TokenAnnotation], 10, 64); err == nil && token > revision {
			return found(Failed, "kubectl metaparticle recover; read docs/disaster.md",
				"the Lease %s/%s has the token %d above the API server's revision %d: the Leases come from another time or cluster, and new tokens are smaller",
				l.Namespace, l.Name, token, revision)
		}
	}
	return ok("no token of %d Leases is above the API server's revision", len(list.Items))
}
