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

// failures has the errors about Leases that could not be changed, by the Leases' keys.
type failures map[types.NamespacedName]error

// without returns the Leases that could be changed.
func (f failures) without(leases []coordinationv1.Lease) []coordinationv1.Lease {
	return slices.DeleteFunc(leases, func(l coordinationv1.Lease) bool { return f[client.ObjectKeyFromObject(&l)] != nil })
}

// report names the Leases that could not be changed, with the effect and the remedy. Of many such
// Leases, report names some.
func (r recovering) report(failed failures, effect string) {
	keys := slices.SortedFunc(maps.Keys(failed), func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	for i, key := range keys {
		if i == mostReported {
			say(r.std.err, "%d more Leases could not be changed: %s", len(keys)-i, effect)
			return
		}
		remedy := fmt.Sprintf("delete the annotations and labels that no agent needs: kubectl -n %s edit lease %s", key.Namespace, key.Name)
		if apierrors.IsForbidden(failed[key]) {
			remedy = "get the right to patch Leases in this namespace"
		}
		say(r.std.err, "%s in %s: %s: %s; %s", key.Name, key.Namespace, effect, bounded(failed[key].Error()), remedy)
	}
}

// mostReported is the largest number of Leases that [recovering.report] names in one step. A tenant
// can make many Leases that nobody can change.
const mostReported = 50

// change changes the annotations of all Leases, and returns the errors by Lease. The end of ctx ends
// the changes.
func (r recovering) change(ctx context.Context, leases []coordinationv1.Lease, wants func(*coordinationv1.Lease) map[string]any) failures {
	failed := failures{}
	for _, l := range leases {
		if ctx.Err() != nil {
			break
		}
		if err := r.annotate(ctx, l, wants); err != nil {
			failed[client.ObjectKeyFromObject(&l)] = err
		}
	}
	return failed
}

// annotate changes the annotations of a Lease. The function "wants" returns the annotations to change,
// or none. The patch names the version of the Lease that "wants" has seen. So a pause that a person
// writes meanwhile stays. A Lease that is gone needs no change.
func (r recovering) annotate(ctx context.Context, of coordinationv1.Lease, wants func(*coordinationv1.Lease) map[string]any) error {
	l := &of
	again := func(err error) bool { return ctx.Err() == nil && (apierrors.IsConflict(err) || temporary(err)) }
	err := retry.OnError(retry.DefaultBackoff, again, func() error {
		annotations := wants(l)
		if len(annotations) == 0 {
			return nil
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": l.ResourceVersion, "annotations": annotations}})
		if err != nil {
			return err
		}
		err = r.cluster.Patch(ctx, l.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
		if apierrors.IsConflict(err) {
			if missed := r.cluster.Get(ctx, client.ObjectKeyFromObject(&of), l); missed != nil {
				return missed
			}
		}
		return err
	})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("patch lease %s in %s: %w", of.Name, of.Namespace, err)
	}
	return nil
}

// temporary reports whether a second attempt may succeed soon.
func temporary(err error) bool {
	return apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err) ||
		apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err)
}
