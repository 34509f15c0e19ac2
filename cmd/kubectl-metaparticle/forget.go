// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

const forgetLong = `Forgets that the work of a key has succeeded. A new pod that claims the key does
the work again, but a pod that already exists does not. To make new pods, run
kubectl rollout restart, or create a new Job.

SLOT is once/NAME, a slot as status prints it, or KIND/NAME of a workload with
metaparticle.io/once: "true", such as deployment/web. For all shards of a Job, SLOT
is shards/job.NAME, and KEY is the UID of the Job.

The Lease barrier/NAME.UID.0 records that the barrier of a Job is open. If the command
forgets that record, later pods of the Job wait at the barrier again.

Exit codes: 0 forgotten; 1 nothing has the name; 2 error; 3 refused, and nothing is written.`

func (p *plugin) forgetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "forget SLOT KEY|barrier/NAME.UID.0", Short: "Let pods do the work of a key again", Long: forgetLong,
		Example: `  kubectl metaparticle forget once/schema 7
  kubectl metaparticle forget deployment/web 5d9c7b
  kubectl metaparticle forget barrier/warm.0a1b2c3d-1111-2222-3333-444455556666.0`,
		ValidArgsFunction: p.completion(works),
		RunE: p.runs(func(ctx context.Context, args []string) (int, error) {
			if err := nameWork(args); err != nil {
				return exitError, err
			}
			opened, namespace, err := p.open()
			if err != nil {
				return exitError, err
			}
			return forget(ctx, opened, namespace, args, p.std)
		}),
	}
}

// leaseOfWork returns the Lease of an argument such as once/schema, shards/job.map.0 or lease/NAME.
func leaseOfWork(arg string) string {
	if slot := slotName([]string{arg}); slot != "" {
		return slot
	}
	return strings.Replace(arg, "/", ".", 1)
}

// nameWork returns an error unless the arguments name work and its key, or a barrier's Lease.
func nameWork(args []string) error {
	if len(args) == 1 && strings.HasPrefix(leaseOfWork(args[0]), view.Barrier+".") {
		return nil
	}
	if len(args) != 2 {
		return errors.New("name the work and its key, as in once/schema 7")
	}
	work, named := strings.CutPrefix(args[0], "once/")
	lease := leaseOfWork(args[0])
	if _, _, shard := api.ReadShard(lease); shard || api.IsOnceSlot(lease) || named && work != "" || (api.Condition{Lease: lease}).Sharded() {
		return nil
	}
	if err := judgeSlots(args[:1]); err != nil {
		return fmt.Errorf("%w; or name once/NAME", err)
	}
	return nil
}

// forget removes the key from the done keys of the Lease, or of the Leases of all shards. For a
// barrier, forget removes the record that the barrier is open. If a Lease has changed meanwhile,
// the API server refuses the patch, and forget reads the Lease again.
func forget(ctx context.Context, c cluster, namespace string, args []string, std stdio) (int, error) {
	if len(args) == 1 {
		return closeBarrier(ctx, c, namespace, leaseOfWork(args[0]), std)
	}
	key := args[1]
	slots, err := doneSlots(ctx, c, namespace, args[0], key)
	if err != nil {
		return exitError, err
	}
	for _, slot := range slots {
		if err := forgetKey(ctx, c, namespace, slot, key); err != nil {
			return exitError, err
		}
		say(std.out, "%s: %s is forgotten", slot, key)
	}
	return exitOK, nil
}

// forgetKey removes the key from the done keys and from the failures of one Lease. If the key is
// not done, forgetKey returns a refusal.
func forgetKey(ctx context.Context, c cluster, namespace, slot, key string) error {
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
		if f := api.Failures(l.Annotations[api.FailuresAnnotation]); f.Count(key) > 0 {
			l.Annotations[api.FailuresAnnotation] = string(f.Without(key))
		}
		return c.Patch(ctx, l, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	})
	if err != nil {
		return unlessMissing(err, namespace, slot)
	}
	return nil
}

// doneSlots returns the slots that a person names. The result is one slot of a once claim, one
// shard, or all shards of a Job that are done for the key.
func doneSlots(ctx context.Context, c cluster, namespace, name, key string) ([]string, error) {
	lease := leaseOfWork(name)
	shards := api.Condition{Lease: lease}
	if _, _, ok := api.ReadShard(lease); ok || api.IsOnceSlot(lease) {
		return []string{lease}, nil
	} else if !shards.Sharded() {
		slot, err := onceSlot(ctx, c, namespace, name, key)
		return []string{slot}, err
	}
	var done []string
	for _, slot := range shards.Leases() {
		l := new(coordinationv1.Lease)
		err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: slot}, l)
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		if api.Done(l.Annotations[api.DoneAnnotation]).Has(key) {
			done = append(done, slot)
		}
	}
	if len(done) == 0 {
		return nil, refusal(fmt.Sprintf("no shard of %s is done in the run %s: name the UID of the Job", name, key))
	}
	return done, nil
}

// unlessMissing returns the error, or a refusal if the Lease does not exist.
func unlessMissing(err error, namespace, slot string) error {
	if apierrors.IsNotFound(err) {
		return absent(fmt.Sprintf("there is no Lease %s in the namespace %s: check the name, and the namespace (-n)", slot, namespace))
	}
	return err
}

// closeBarrier removes the record of an open barrier from its Lease.
func closeBarrier(ctx context.Context, c cluster, namespace, slot string, std stdio) (int, error) {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		l := new(coordinationv1.Lease)
		if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: slot}, l); err != nil {
			return err
		}
		if l.Annotations[api.OpenedAnnotation] == "" {
			return refusal(slot + " has no record of an open barrier: there is nothing to forget")
		}
		before := l.DeepCopy()
		delete(l.Annotations, api.OpenedAnnotation)
		return c.Patch(ctx, l, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	})
	if err != nil {
		return exitError, unlessMissing(err, namespace, slot)
	}
	say(std.out, "%s: later pods of the Job wait at the barrier again", slot)
	return exitOK, nil
}

// onceSlot returns the slot of the once claim or of the workload that a person names. After a
// change of the claim, a workload may have several slots of once claims. Then the function prefers
// a slot for which the key is done.
func onceSlot(ctx context.Context, c cluster, namespace, name, key string) (string, error) {
	if name, ok := strings.CutPrefix(name, "once/"); ok && name != "" {
		return api.OnceLease(name), nil
	}
	s, err := findSlots(ctx, c, namespace, []string{name})
	if err != nil {
		return "", err
	}
	once := slices.DeleteFunc(slices.Clone(s.slots), func(slot string) bool { return !api.IsOnceSlot(slot) })
	for _, slot := range once {
		if l := s.leases[slot]; l != nil && api.Done(l.Annotations[api.DoneAnnotation]).Has(key) {
			return slot, nil
		}
	}
	if len(once) == 0 {
		return "", refusal(name + " has no once claim: name the work and its key, as in once/schema 7")
	}
	return once[0], nil
}
