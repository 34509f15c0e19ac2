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

	"github.com/metaparticle-io/metaparticle/api"
)

const forgetUsage = `Forgets that the work of a key has succeeded. The next pod that claims the key
runs its container again. A container that was skipped before does not run.

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

// forget removes the key from the done keys of the Lease.
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
		done := api.Done(l.Annotations[api.DoneAnnotation])
		if !done.Has(key) {
			return refusal(fmt.Sprintf("%s has the done keys %q, not %s", slot, done, key))
		}
		l.Annotations[api.DoneAnnotation] = string(done.Without(key))
		if l.Annotations[api.DoneAnnotation] == "" {
			delete(l.Annotations, api.DoneAnnotation)
		}
		return c.Update(ctx, l)
	})
	switch {
	case apierrors.IsNotFound(err):
		return exitError, refusal(fmt.Sprintf("%s has no Lease in the namespace %s: no pod has claimed the work there", slot, namespace))
	case err != nil:
		return exitError, err
	}
	fmt.Fprintf(std.out, "%s: %s is forgotten\n", slot, key)
	return exitOK, nil
}
