// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
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
// other namespaces small. So raise names the Lease, and goes on. The first result has these Leases.
// After any other error raise writes nothing, because a slot without a pause could get an old
// token.
func (r recovering) raise(ctx context.Context, before state, floor uint64) (failures, error) {
	for i := range recoverWriters {
		if err := r.create(ctx, scratch(i)); err != nil {
			return nil, unfinished(err, floor)
		}
	}
	pause := func(l *coordinationv1.Lease) map[string]any {
		if api.PauseOf(l.Annotations) != "" {
			return nil
		}
		return map[string]any{api.PausedAnnotation: string(api.PauseRecover)}
	}
	unpaused, err := r.change(ctx, before.slots, pause)
	if err != nil {
		return nil, unfinished(fmt.Errorf("pause all slots: %w", err), floor)
	}
	r.report(unpaused, "a pod can acquire the slot meanwhile, with a token that storage has seen")
	which := "no slot"
	switch {
	case len(unpaused) > 0 && len(unpaused) == len(before.slots):
		return nil, errors.New("no slot can be paused, so nothing is written: find the cause, and repeat the command")
	case len(unpaused) > 0:
		which = "no other slot"
	}
	say(r.std.out, "%s can be acquired; writing %d times", which, floor-before.revision+1)
	err = r.writeAll(ctx, floor)
	switch {
	case err == nil:
		return unpaused, nil
	case ctx.Err() != nil || !refusesWrites(err):
		// The person ended the command, or the API server's errors lasted longer than [patience].
		// The pauses protect the slots until the person repeats the command.
		return nil, unfinished(err, floor)
	}
	return nil, r.giveUp(ctx, before, floor, err)
}

// giveUp ends the pauses that this command wrote, because the API server permanently refuses the
// writes that raise etcd's revision. If the pauses stayed, no slot of the cluster would change its
// holder until a person finds the cause.
// Pauses of an earlier, interrupted command stay.
func (r recovering) giveUp(ctx context.Context, before state, floor uint64, cause error) error {
	now, err := r.readAgain(ctx)
	if err != nil {
		return unfinished(errors.Join(cause, err), floor)
	}
	paused := map[types.UID]bool{}
	for _, l := range before.slots {
		paused[l.UID] = api.PauseOf(l.Annotations) == ""
	}
	stuck, err := r.change(ctx, now.slots, func(l *coordinationv1.Lease) map[string]any {
		if api.PauseOf(l.Annotations) != api.PauseRecover || !paused[l.UID] {
			return nil
		}
		return map[string]any{api.PausedAnnotation: nil}
	})
	r.report(stuck, "the slot stays paused")
	if err != nil {
		return unfinished(errors.Join(cause, err), floor)
	}
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
	stays := func(err error) bool { return refusesWrites(err) || apierrors.IsAlreadyExists(err) }
	err := patiently(ctx, stays, func(ctx context.Context) error { return r.cluster.Create(ctx, l) })
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("write into the namespace %s: %w", recoverHome, err)
	}
	return nil
}

// write changes one object until etcd's revision is above the floor, and then deletes the object.
func (r recovering) write(ctx context.Context, number int, floor uint64) error {
	l := scratch(number)
	said := time.Now()
	for count := 0; ; count++ {
		patch := fmt.Appendf(nil, `{"spec":{"holderIdentity":"%d.%d"}}`, time.Now().UnixNano(), count)
		err := patiently(ctx, refusesWrites, func(ctx context.Context) error {
			return r.cluster.Patch(ctx, l, client.RawPatch(types.MergePatchType, patch))
		})
		if apierrors.IsNotFound(err) {
			// Another person's command "recover" writes the same object. That command has raised
			// the revision above its own floor, and has then deleted the object.
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
			// The revision is raised. An object that cannot be deleted does no harm, and the next
			// command "recover" uses this object.
			_ = patiently(ctx, refusesWrites, func(ctx context.Context) error { return r.cluster.Delete(ctx, l) })
			return nil
		}
	}
}

// renew requests a yield from each holder whose token is not above the floor. The method also
// removes the pauses that [recovering.raise] wrote, and waits until each holder has a token above
// the floor. If the API server refuses to change a Lease, renew still ends the pauses of all other
// slots.
func (r recovering) renew(ctx context.Context, floor uint64) (int, error) {
	now, err := r.readAgain(ctx)
	if err != nil {
		return exitError, unfinished(err, floor)
	}
	if now.revision <= floor {
		return exitError, unfinished(fmt.Errorf("the revision %d is not above the floor %d", now.revision, floor), floor)
	}
	end := func(l *coordinationv1.Lease) map[string]any {
		annotations := map[string]any{}
		if api.PauseOf(l.Annotations) == api.PauseRecover {
			annotations[api.PausedAnnotation] = nil
		}
		if hold := l.Annotations[api.HoldAnnotation]; isOutdated(l, floor) && hold != "" {
			annotations[api.YieldAnnotation] = api.Yield{Hold: hold}.String()
		}
		return annotations
	}
	failed, err := r.change(ctx, now.slots, end)
	r.report(failed, "the slot may stay paused, and its holder is not asked to yield")
	if err != nil {
		return exitError, unfinished(fmt.Errorf("end the pauses: %w", err), floor)
	}
	say(r.std.out, "revision %d is above the floor; %d holders are asked to yield", now.revision, len(failed.without(now.outdated(floor))))
	code, err := r.await(ctx, floor, failed)
	if code != exitOK && ctx.Err() != nil {
		return exitError, fmt.Errorf("wait for the holders: %w; tokens up to the floor may remain: repeat the command with --floor %d", ctx.Err(), floor)
	}
	if err == nil && len(failed) > 0 {
		return exitError, unfinished(fmt.Errorf("%s could not be changed", plural(len(failed), "Lease")), floor)
	}
	return code, err
}

// await waits until each holder has a token above the floor. The holders of the Leases that could
// not be changed do not count. At the timeout, await prints the holders without such a token.
func (r recovering) await(ctx context.Context, floor uint64, failed failures) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var left []coordinationv1.Lease
	began, versions := time.Now(), map[types.UID]string{}
	for {
		now, err := r.readAgain(ctx)
		if err == nil {
			for _, l := range now.slots {
				if versions[l.UID] == "" {
					versions[l.UID] = l.ResourceVersion
				}
			}
			if left = failed.without(now.outdated(floor)); len(left) == 0 {
				say(r.std.out, "each %sholder has a token above the floor", map[bool]string{true: "other "}[len(failed) > 0])
				return exitOK, nil
			}
		} else if ctx.Err() == nil {
			return exitError, err
		}
		select {
		case <-time.After(betweenWatches):
		case <-ctx.Done():
			waited := time.Since(began)
			r.name(left, func(l *coordinationv1.Lease) string { return stubborn(l, versions[l.UID] == l.ResourceVersion, waited) })
			return exitNot, nil
		}
	}
}

// mostStubborn is the largest number of holders in one namespace that [recovering.name] prints. A
// tenant can make many Leases whose holder never yields.
const mostStubborn = 10

// name prints the Leases whose holders have not yielded, each with the result of the function
// "remedy". Of many such Leases in one namespace, name prints some.
func (r recovering) name(left []coordinationv1.Lease, remedy func(*coordinationv1.Lease) string) {
	more := map[string]int{}
	for _, l := range left {
		if more[l.Namespace]++; more[l.Namespace] > mostStubborn {
			continue
		}
		say(r.std.err, "%s in %s: %s still holds with token %s: %s", l.Name, l.Namespace, api.PodOf(view.HolderOf(&l)),
			bounded(l.Annotations[api.TokenAnnotation]), remedy(&l))
	}
	for _, namespace := range slices.Sorted(maps.Keys(more)) {
		if n := more[namespace] - mostStubborn; n > 0 {
			say(r.std.err, "%d more holders in %s still hold", n, namespace)
		}
	}
}

// stubborn returns a text for a person about a holder that has not yielded. The argument "silent"
// is true if the Lease has not changed during the time "waited".
func stubborn(l *coordinationv1.Lease, silent bool, waited time.Duration) string {
	switch {
	case silent && waited > time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0))*time.Second:
		return "the holder has not renewed for longer than the lease duration; the next holder gets a greater token"
	case api.PauseOf(l.Annotations) != "":
		return "the slot is paused, and the holder yields at the end of the pause"
	}
	return "delete the pod"
}
