// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// betweenWatches is the time between two watches. Even if an API server ends each watch
// immediately, a command must not send more requests than an agent.
const betweenWatches = time.Second

// await watches the Lease until the function "wanted" returns true. If ctx ends before
// that, the result is the error of ctx.
func (c cluster) await(ctx context.Context, key types.NamespacedName, wanted func(*coordinationv1.Lease) bool) error {
	for {
		done, err := c.watchOnce(ctx, key, wanted)
		if done || err != nil {
			return err
		}
		select {
		case <-time.After(betweenWatches):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watchOnce watches the Lease until the function "wanted" returns true, or the watch ends.
// The Lease is read after the start of the watch, so no change is missed.
func (c cluster) watchOnce(ctx context.Context, key types.NamespacedName, wanted func(*coordinationv1.Lease) bool) (bool, error) {
	changes, err := c.Watch(ctx, &coordinationv1.LeaseList{}, client.InNamespace(key.Namespace),
		client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", key.Name)})
	if err != nil {
		return false, fmt.Errorf("watch lease %s: %w", key.Name, err)
	}
	defer changes.Stop()
	lease := new(coordinationv1.Lease)
	switch err := c.Get(ctx, key, lease); {
	case apierrors.IsNotFound(err): // enroll can make the Lease later
	case err != nil:
		return false, fmt.Errorf("read lease %s: %w", key.Name, err)
	case wanted(lease):
		return true, nil
	}
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case change, open := <-changes.ResultChan():
			if !open {
				return false, ctx.Err()
			}
			lease, ok := change.Object.(*coordinationv1.Lease)
			if ok && lease.Name == key.Name && wanted(lease) {
				return true, nil
			}
		}
	}
}
