// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

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
		return exitError, unfinished(fmt.Errorf("%d Leases could not be changed", len(failed)), floor)
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
			return exitUnreached, nil
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
