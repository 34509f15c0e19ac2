// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

const forgetUsage = `Forgets that the work of a key has succeeded. A new pod that claims the key does
the work again. A pod that exists already does not: make new pods with kubectl
rollout restart, or a new Job.

Exit codes: 0 forgotten; 1 refused, nothing is written; 2 error.

  kubectl metaparticle forget [-n NAMESPACE] once/NAME KEY
`

func forgetCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newFlags("forget", forgetUsage, std)
	c, namespace, rest, err := connection.begin(flags, args)
	if err != nil {
		return exitError, err
	}
	return forget(ctx, c, namespace, rest, std)
}

// forget removes the key from the done keys of the Lease. If the Lease has changed meanwhile,
// the patch is refused, and forget reads the Lease again.
func forget(ctx context.Context, c cluster, namespace string, args []string, std stdio) (int, error) {
	var name string
	if len(args) == 2 {
		name, _ = strings.CutPrefix(args[0], "once/")
	}
	if name == "" || name == args[0] {
		return exitError, refusal("name the work and its key, as in once/schema 7")
	}
	slot, key := api.OnceLease(name), args[1]
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		l := new(coordinationv1.Lease)
		if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: slot}, l); err != nil {
			return err
		}
		before := l.DeepCopy()
		done := api.Done(l.Annotations[api.DoneAnnotation])
		switch left := done.Without(key); {
		case done == "":
			return refusal(slot + " has no done keys: there is nothing to forget")
		case !done.Has(key):
			return refusal(fmt.Sprintf("%s has no done key %s: name one of %s", slot, key, strings.Join(done.Keys(), ", ")))
		case left == "":
			delete(l.Annotations, api.DoneAnnotation)
		default:
			l.Annotations[api.DoneAnnotation] = string(left)
		}
		return c.Patch(ctx, l, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	})
	switch {
	case apierrors.IsNotFound(err):
		return exitError, refusal(fmt.Sprintf("there is no Lease %s in the namespace %s: check the name, and the namespace (-n)", slot, namespace))
	case err != nil:
		return exitError, err
	}
	fmt.Fprintf(std.out, "%s: %s is forgotten\n", slot, key)
	return exitOK, nil
}
