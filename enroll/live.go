// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// liveShards reads from the API server, not from the cache, and returns the Leases of shards that
// enroll made. Of each Lease, only that stays in memory which the cache would keep. Any user who may
// create Leases can make very many huge Leases.
func liveShards(ctx context.Context, s store, namespace string) (map[string]*coordinationv1.Lease, error) {
	leases := map[string]*coordinationv1.Lease{}
	var list coordinationv1.LeaseList
	err := eachPage(ctx, s, &list, func() {
		for _, lease := range list.Items {
			if _, _, shard := api.ReadShard(lease.Name); shard && ours(&lease) {
				stripLease(&lease)
				leases[lease.Name] = &lease
			}
		}
	}, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel})
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return leases, nil
}

// liveRoles reads from the API server, not from the cache, and returns the Roles that enroll made.
// Of each Role, only that stays in memory which the cache would keep.
func (s store) liveRoles(ctx context.Context, namespace string) (*agentRoles, error) {
	var list rbacv1.RoleList
	var all []rbacv1.Role
	err := eachPage(ctx, s, &list, func() {
		for _, role := range list.Items {
			role.ManagedFields = nil
			if stripRole(&role); role.Name != "" {
				all = append(all, role)
			}
		}
	}, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel})
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	return rolesOf(all), nil
}
