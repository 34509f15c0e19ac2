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
	var foreign []coordinationv1.Lease
	greatest, at := uint64(0), 0
	for _, l := range list.Items {
		token, err := strconv.ParseUint(l.Annotations[api.TokenAnnotation], 10, 64)
		if err != nil || token <= revision {
			continue
		}
		if token > greatest {
			greatest, at = token, len(foreign)
		}
		foreign = append(foreign, l)
	}
	if len(foreign) > 0 {
		l := foreign[at]
		return found(Failed, fmt.Sprintf("read docs/disaster.md. If storage can have seen this token: kubectl metaparticle recover --floor %d. "+
			"If not, a pod wrote any number: kubectl -n %s annotate lease %s %s-", greatest, l.Namespace, l.Name, api.TokenAnnotation),
			"the Lease %s/%s has the token %d above the API server's revision %d (such Leases: %d): "+
				"the Leases come from another time or cluster, and new tokens are smaller, or a pod of the namespace %s wrote this number",
			l.Namespace, l.Name, greatest, revision, len(foreign), l.Namespace)
	}
	return ok("no token of %d Leases is above the API server's revision", len(list.Items))
}
