// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// failures has each refusal of the API server to change a Lease, by the Lease's namespace and name.
type failures map[types.NamespacedName]error

// without returns the Leases that could be changed.
func (f failures) without(leases []coordinationv1.Lease) []coordinationv1.Lease {
	return slices.DeleteFunc(leases, func(l coordinationv1.Lease) bool { return f[client.ObjectKeyFromObject(&l)] != nil })
}

// report names the Leases that the API server refuses to change, with the effect and the remedy. Of
// many such Leases, report names some.
func (r recovering) report(failed failures, effect string) {
	keys := slices.SortedFunc(maps.Keys(failed), func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	for i, key := range keys {
		if i == mostReported {
			say(r.std.err, "%d more Leases could not be changed: %s", len(keys)-i, effect)
			return
		}
		say(r.std.err, "%s in %s: %s: %s; %s", key.Name, key.Namespace, effect, bounded(failed[key].Error()), remedy(key, failed[key]))
	}
}

// remedy returns what a person does about a refusal to change a Lease.
func remedy(key types.NamespacedName, err error) string {
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot patch resource"):
		return "get the right to patch Leases in this namespace"
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot get resource"):
		return "get the right to read Leases in this namespace"
	case apierrors.IsForbidden(err):
		return "change the policy that refuses the patch"
	case apierrors.IsConflict(err):
		return fmt.Sprintf("find the client that changes the Lease all the time: kubectl -n %s get lease %s -o yaml --show-managed-fields", key.Namespace, key.Name)
	}
	return fmt.Sprintf("delete the annotations and labels that no agent needs: kubectl -n %s edit lease %s", key.Namespace, key.Name)
}

// mostReported is the largest number of Leases that [recovering.report] names in one step. A tenant
// can make many Leases that nobody can change.
const mostReported = 50

// change changes the annotations of all Leases, and returns the refusals by Lease. An error that is
// no such refusal ends the changes, because the next Lease would have the same error. The end of
// ctx is such an error, too.
func (r recovering) change(ctx context.Context, leases []coordinationv1.Lease, wants func(*coordinationv1.Lease) map[string]any) (failures, error) {
	failed := failures{}
	for _, l := range leases {
		err := r.annotate(ctx, l, wants)
		switch {
		case ctx.Err() != nil:
			return failed, ctx.Err()
		case err != nil && !refusesLease(err):
			return failed, err
		case err != nil:
			failed[client.ObjectKeyFromObject(&l)] = err
		}
	}
	return failed, nil
}

// annotate changes the annotations of a Lease. The function "wants" returns the annotations to
// change, or none. The patch names the resourceVersion of the Lease that "wants" has seen. So a
// pause that a person writes meanwhile stays. A Lease that is gone needs no change.
func (r recovering) annotate(ctx context.Context, of coordinationv1.Lease, wants func(*coordinationv1.Lease) map[string]any) error {
	l := &of
	stays := func(err error) bool { return refusesLease(err) || apierrors.IsNotFound(err) }
	err := patiently(ctx, stays, func(ctx context.Context) error {
		// A tenant can change many Leases all the time, so that each patch has a conflict. With
		// the whole [patience] for each such Lease, the command would take too long. So the
		// command gives up a Lease after a few conflicts.
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			return r.patch(ctx, l, wants(l))
		})
	})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("patch lease %s in %s: %w", of.Name, of.Namespace, err)
	}
	return nil
}

// patch changes the annotations of a Lease. After a conflict, patch reads the Lease anew.
func (r recovering) patch(ctx context.Context, l *coordinationv1.Lease, annotations map[string]any) error {
	if len(annotations) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": l.ResourceVersion, "annotations": annotations}})
	if err != nil {
		return err
	}
	err = r.cluster.Patch(ctx, l.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) {
		if missed := r.cluster.Get(ctx, client.ObjectKeyFromObject(l), l); missed != nil {
			return missed
		}
	}
	return err
}
