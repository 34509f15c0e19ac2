// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

const recoverUsage = `Makes fencing tokens grow again after etcd was restored without --bump-revision, or
Leases were restored into another cluster. A token is the API server's revision after
a write. So the command pauses all slots, and writes until the revision is above
the floor. Then each holder with a token up to the floor yields, and the pauses end.

--floor is the greatest revision that the lost API server can have had. docs/disaster.md
says where to read it. A greater token in a Lease or Variable counts, too, if it is above the
revision. After a restore of etcd there is none, because Leases go back with the revision.

While the command writes, no slot can be acquired, so no standby takes over.

First wait for the longest lease duration without an API server, as docs/disaster.md says.
The command does not replace that wait. Repeat the command if it was interrupted.

Exit codes: 0 all holders have tokens above the floor; 1 refused, nothing is written;
2 error; 3 a holder has not yielded in time, and is named.

  kubectl metaparticle recover [--floor N] [--dry-run] [--timeout D]
`

// mostWrites bounds the writes that raise etcd's revision above the floor. The floor is the value
// of --floor, or a greater token in the cluster. At 400 writes per second, the writes take 21
// minutes, in which no slot can be acquired. All writes together cost etcd 250 MB until the next
// compaction, of the two gigabytes at which etcd refuses all writes.
const mostWrites = 500_000

// progressEvery is the time between two lines about etcd's revision.
const progressEvery = 10 * time.Second

// recoverWriters is the number of objects that the command writes at the same time. Etcd commits
// concurrent writes to several objects together, but commits writes to one object one by one.
const recoverWriters = 32

// recoverHome is the namespace of the objects that the command writes to raise etcd's revision.
const recoverHome = "metaparticle-system"

func recoverCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newFlags("recover", recoverUsage, std)
	floor := flags.Uint64("floor", 0, "greatest revision that the lost API server can have had")
	dryRun := flags.Bool("dry-run", false, "print the figures, and write nothing")
	timeout := flags.Duration("timeout", 5*time.Minute, "how long to wait for the holders")
	rest, err := parse(flags, args)
	if err != nil {
		return exitError, err
	}
	if len(rest) > 0 {
		return exitError, refusal("recover takes no arguments: it covers all namespaces")
	}
	c, err := connection.unlimited()
	if err != nil {
		return exitError, err
	}
	return recovering{cluster: c, std: std, floor: *floor, dryRun: *dryRun, timeout: *timeout}.run(ctx)
}

// recovering is one recovery that a person asks for.
type recovering struct {
	cluster cluster
	std     stdio
	floor   uint64
	dryRun  bool
	timeout time.Duration
}

// state is the cluster at one revision of etcd.
type state struct {
	revision uint64
	// slots are the Leases of all claims, without those of barriers.
	slots []coordinationv1.Lease
	// foreign is the greatest token above the revision. A Lease or Variable with such a token comes
	// from another cluster, or from before a restore of etcd.
	foreign uint64
	// bearer names the Lease or Variable with the token "foreign". Each pod can write any token
	// into its own Lease, so the command shows a person where the token is.
	bearer string
}

// note stores a token above the revision, and its Lease or Variable, if the token is the greatest one
// so far.
func (s *state) note(token uint64, kind string, of client.Object) {
	if token > s.revision && token > s.foreign {
		s.foreign, s.bearer = token, fmt.Sprintf("the %s %s in %s", kind, of.GetName(), of.GetNamespace())
	}
}

func (r recovering) run(ctx context.Context) (int, error) {
	before, err := r.read(ctx)
	if err != nil {
		return exitError, err
	}
	floor := max(r.floor, before.foreign)
	fmt.Fprintf(r.std.out, "revision %d, floor %d; %d slots, %d of them held with a token up to the floor\n",
		before.revision, floor, len(before.slots), len(before.outdated(floor)))
	switch {
	case floor == 0 && before.interrupted():
		return exitError, refusal("slots are still paused by an earlier recover: repeat that command with its floor (--floor)")
	case floor == 0:
		return exitError, refusal("no Lease or Variable has a token above the revision: name the floor (--floor), from before the restore")
	case floor > before.revision && floor-before.revision > mostWrites:
		return exitError, refusal(fmt.Sprintf("the floor%s is %d revisions away, and the command writes at most %d: repeat the restore with --bump-revision",
			before.source(floor), floor-before.revision, mostWrites))
	case r.dryRun:
		return exitOK, nil
	}
	if before.revision <= floor {
		if err := r.raise(ctx, before, floor); err != nil {
			return exitError, unfinished(err, floor)
		}
	}
	return r.renew(ctx, floor)
}

// source returns a text with the name of the Lease or Variable whose token is the floor. The text
// is empty if a person named a higher floor.
func (s state) source(floor uint64) string {
	if s.foreign < floor {
		return ""
	}
	return ", the token of " + s.bearer + ","
}

// unfinished adds to an error what a person must know: slots may stay paused.
func unfinished(err error, floor uint64) error {
	return fmt.Errorf("%w; slots may stay paused: repeat the command with --floor %d", err, floor)
}

// read returns the state of the cluster. The list request names no resourceVersion, so the API
// server answers with a consistent list of etcd's newest state.
func (r recovering) read(ctx context.Context) (state, error) {
	var list coordinationv1.LeaseList
	if err := r.cluster.List(ctx, &list, client.HasLabels{api.ManagedLabel}); err != nil {
		return state{}, fmt.Errorf("list leases: %w", err)
	}
	revision, err := strconv.ParseUint(list.ResourceVersion, 10, 64)
	if err != nil {
		return state{}, fmt.Errorf("the API server's revision is no number: %w", err)
	}
	now := state{revision: revision}
	for _, l := range list.Items {
		now.note(tokenOf(&l), "Lease", &l)
		if api.IsSlot(l.Name) && api.RunOf(l.Name) == "" {
			now.slots = append(now.slots, l)
		}
	}
	variables := &unstructured.UnstructuredList{}
	variables.SetGroupVersionKind(schema.GroupVersionKind{Group: "metaparticle.io", Version: "v1alpha1", Kind: "VariableList"})
	if err := r.cluster.List(ctx, variables); err != nil && !apimeta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		return state{}, fmt.Errorf("list Variables: %w", err)
	}
	for _, v := range variables.Items {
		if token, ok, _ := unstructured.NestedInt64(v.Object, "spec", "fence", "token"); ok && token > 0 {
			now.note(uint64(token), "Variable", &v)
		}
	}
	return now, nil
}

// tokenOf returns the token that the Lease records, or zero if the Lease has no valid token.
func tokenOf(l *coordinationv1.Lease) uint64 {
	token, err := strconv.ParseUint(l.Annotations[api.TokenAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return token
}

// outdated returns the Leases whose holder needs a new token.
func (s state) outdated(floor uint64) []coordinationv1.Lease {
	return slices.DeleteFunc(slices.Clone(s.slots), func(l coordinationv1.Lease) bool { return !isOutdated(&l, floor) })
}

// isOutdated reports whether the holder of the Lease needs a new token. The reason is a token that is
// not above the floor, or a hold that has no token yet. The holder of a start lock never gets a token,
// so the Lease of a start lock is never outdated.
func isOutdated(l *coordinationv1.Lease, floor uint64) bool {
	life, _ := api.SplitSlots([]string{l.Name})
	return len(life) > 0 && api.IsIdentity(view.HolderOf(l)) && tokenOf(l) <= floor
}

// interrupted reports whether an earlier command "recover" has left a slot paused.
func (s state) interrupted() bool {
	return slices.ContainsFunc(s.slots, func(l coordinationv1.Lease) bool { return api.PauseOf(l.Annotations) == api.PauseRecover })
}

// raise pauses all slots, and then writes until etcd's revision is above the floor. Before the
// pauses, the method "raise" creates the objects for these writes. So a command that cannot
// write pauses nothing.
func (r recovering) raise(ctx context.Context, before state, floor uint64) error {
	for i := range recoverWriters {
		if err := r.create(ctx, scratch(i)); err != nil {
			return err
		}
	}
	pause := func(l *coordinationv1.Lease) map[string]any {
		if api.PauseOf(l.Annotations) != "" {
			return nil
		}
		return map[string]any{api.PausedAnnotation: string(api.PauseRecover)}
	}
	for _, l := range before.slots {
		if err := r.annotate(ctx, l, pause); err != nil {
			return err
		}
	}
	fmt.Fprintf(r.std.out, "no slot can be acquired; writing %d times\n", floor-before.revision+1)
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

// write changes one object until etcd's revision is above the floor, and then deletes the object.
func (r recovering) write(ctx context.Context, number int, floor uint64) error {
	l := scratch(number)
	said := time.Now()
	for count := 0; ; count++ {
		patch := fmt.Appendf(nil, `{"spec":{"holderIdentity":"%d.%d"}}`, time.Now().UnixNano(), count)
		err := r.cluster.Patch(ctx, l, client.RawPatch(types.MergePatchType, patch))
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
			fmt.Fprintf(r.std.out, "revision %d of %d\n", revision, floor)
		}
		if revision > floor {
			return client.IgnoreNotFound(r.cluster.Delete(ctx, l))
		}
	}
}

// renew requests a yield from each holder whose token is not above the floor. The method also
// removes the pauses that [recovering.raise] wrote, and waits until each holder has a token above
// the floor. An error about one Lease, as in a namespace without rights, keeps no other slot paused.
func (r recovering) renew(ctx context.Context, floor uint64) (int, error) {
	now, err := r.read(ctx)
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
	var errs []error
	for _, l := range now.slots {
		errs = append(errs, r.annotate(ctx, l, end))
	}
	if err := errors.Join(errs...); err != nil {
		return exitError, unfinished(err, floor)
	}
	fmt.Fprintf(r.std.out, "revision %d is above the floor; %d holders are asked to yield\n", now.revision, len(now.outdated(floor)))
	return r.await(ctx, floor)
}

// await waits until each holder has a token above the floor. At the timeout, await prints the
// holders without such a token.
func (r recovering) await(ctx context.Context, floor uint64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var left []coordinationv1.Lease
	began, versions := time.Now(), map[types.UID]string{}
	for {
		now, err := r.read(ctx)
		if err == nil {
			for _, l := range now.slots {
				if versions[l.UID] == "" {
					versions[l.UID] = l.ResourceVersion
				}
			}
			if left = now.outdated(floor); len(left) == 0 {
				fmt.Fprintln(r.std.out, "each holder has a token above the floor")
				return exitOK, nil
			}
		} else if ctx.Err() == nil {
			return exitError, err
		}
		select {
		case <-time.After(betweenWatches):
		case <-ctx.Done():
			for _, l := range left {
				fmt.Fprintf(r.std.err, "%s in %s: %s still holds with token %s: %s\n", l.Name, l.Namespace, api.PodOf(view.HolderOf(&l)),
					l.Annotations[api.TokenAnnotation], stubborn(&l, versions[l.UID] == l.ResourceVersion, time.Since(began)))
			}
			return exitUnreached, nil
		}
	}
}

// stubborn returns a text for a person about a holder that has not yielded. The argument "silent" is
// true if the Lease has not changed during the time "waited".
func stubborn(l *coordinationv1.Lease, silent bool, waited time.Duration) string {
	switch {
	case silent && waited > time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0))*time.Second:
		return "the holder has not renewed for longer than the lease duration; the next holder gets a greater token"
	case api.PauseOf(l.Annotations) != "":
		return "the slot is paused, and the holder yields at the end of the pause"
	}
	return "delete the pod"
}

// annotate changes the annotations of a Lease. The function "wants" returns the annotations to change,
// or none. The patch names the version of the Lease that "wants" has seen. So a pause that a person
// writes meanwhile stays. A Lease that is gone needs no change.
func (r recovering) annotate(ctx context.Context, of coordinationv1.Lease, wants func(*coordinationv1.Lease) map[string]any) error {
	l := &of
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
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
