// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// progressEvery is the time between two lines about etcd's revision.
const progressEvery = 10 * time.Second

// recoverWriters is the number of objects that the command writes at the same time. Etcd commits
// concurrent writes to several objects together, but commits writes to one object one by one.
const recoverWriters = 32

// recoverHome is the namespace of the objects that the command writes to raise etcd's revision.
const recoverHome = "metaparticle-system"

// raise pauses all slots, and then writes until etcd's revision is above the floor. Before the
// pauses, the method "raise" creates the objects for these writes. So a command that cannot
// write pauses nothing.
//
// A person of one namespace can make a Lease that the API server lets nobody change, for example by
// annotations of the greatest size. Such a Lease gets no pause, and must not keep the tokens of all
// other namespaces small. So raise names the Lease, and goes on.
func (r recovering) raise(ctx context.Context, before state, floor uint64) error {
	for i := range recoverWriters {
		if err := r.create(ctx, scratch(i)); err != nil {
			return unfinished(err, floor)
		}
	}
	pause := func(l *coordinationv1.Lease) map[string]any {
		if api.PauseOf(l.Annotations) != "" {
			return nil
		}
		return map[string]any{api.PausedAnnotation: string(api.PauseRecover)}
	}
	unpaused := r.change(ctx, before.slots, pause)
	if ctx.Err() != nil {
		return unfinished(ctx.Err(), floor)
	}
	r.report(unpaused, "a pod can acquire the slot meanwhile, with a token that storage has seen")
	which := "no slot"
	switch {
	case len(unpaused) > 0 && len(unpaused) == len(before.slots):
		return errors.New("no slot can be paused, so nothing is written: find the cause, and repeat the command")
	case len(unpaused) > 0:
		which = "no other slot"
	}
	say(r.std.out, "%s can be acquired; writing %d times", which, floor-before.revision+1)
	err := r.writeAll(ctx, floor)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		// The person ended the command. The pauses protect the slots until the person repeats it.
		return unfinished(err, floor)
	}
	return r.giveUp(ctx, before, floor, err)
}

// giveUp ends the pauses that this run wrote, because the revision cannot be raised. Otherwise no
// slot of the cluster would change its holder until a person finds the cause. Pauses of an earlier,
// interrupted run stay.
func (r recovering) giveUp(ctx context.Context, before state, floor uint64, cause error) error {
	now, err := r.read(ctx)
	if err != nil {
		return unfinished(errors.Join(cause, err), floor)
	}
	paused := map[types.UID]bool{}
	for _, l := range before.slots {
		paused[l.UID] = api.PauseOf(l.Annotations) == ""
	}
	stuck := r.change(ctx, now.slots, func(l *coordinationv1.Lease) map[string]any {
		if api.PauseOf(l.Annotations) != api.PauseRecover || !paused[l.UID] {
			return nil
		}
		return map[string]any{api.PausedAnnotation: nil}
	})
	r.report(stuck, "the slot stays paused")
	return fmt.Errorf("%w; the pauses of this run have ended, and tokens can repeat: repeat the command with --floor %d", cause, floor)
}

// writeAll writes by several goroutines until etcd's revision is above the floor.
func (r recovering) writeAll(ctx context.Context, floor uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var writers sync.WaitGroup
	errs := make([]error, recoverWriters)
	for i := range recoverWriters {
		writers.Go(func() {
			if errs[i] = r.write(ctx, i, floor); errs[i] != nil {
				cancel()
			}
		})
	}
	writers.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err // the other goroutines ended because of this error
		}
	}
	return errors.Join(errs...)
}

// scratch returns the object that one goroutine writes.
func scratch(number int) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: recoverHome, Name: "metaparticle-recover-" + strconv.Itoa(number)}}
}

// create creates an object that [scratch] returned, unless the object exists.
func (r recovering) create(ctx context.Context, l *coordinationv1.Lease) error {
	if err := r.cluster.Create(ctx, l); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("write into the namespace %s: %w", recoverHome, err)
	}
	return nil
}

// patience is the time for which a write is repeated after temporary errors: 25 s. The election of
// another leader of etcd takes less.
var patience = wait.Backoff{Steps: 8, Duration: 200 * time.Millisecond, Factor: 2}

// write changes one object until etcd's revision is above the floor, and then deletes the object.
func (r recovering) write(ctx context.Context, number int, floor uint64) error {
	l := scratch(number)
	said := time.Now()
	for count := 0; ; count++ {
		patch := fmt.Appendf(nil, `{"spec":{"holderIdentity":"%d.%d"}}`, time.Now().UnixNano(), count)
		err := retry.OnError(patience, func(err error) bool { return ctx.Err() == nil && temporary(err) }, func() error {
			return r.cluster.Patch(ctx, l, client.RawPatch(types.MergePatchType, patch))
		})
		if apierrors.IsNotFound(err) {
			// Another person's command "recover" has reached its own floor, and has deleted the object.
			l = scratch(number)
			if err := r.create(ctx, l); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("raise the revision: %w", err)
		}
		revision, err := strconv.ParseUint(l.ResourceVersion, 10, 64)
		if err != nil {
			return fmt.Errorf("the API server's revision is no number: %w", err)
		}
		if number == 0 && time.Since(said) >= progressEvery {
			said = time.Now()
			say(r.std.out, "revision %d of %d", revision, floor)
		}
		if revision > floor {
			return client.IgnoreNotFound(r.cluster.Delete(ctx, l))
		}
	}
}
