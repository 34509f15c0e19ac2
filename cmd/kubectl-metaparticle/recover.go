// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const recoverLong = `Makes fencing tokens grow again after a restore of etcd without --bump-revision, or
after a restore of Leases into another cluster. A token is the API server's revision after
a write. So the command pauses all slots, and writes until the revision is above
the floor. Then each holder with a token up to the floor yields, and the pauses end.

The value of --floor is the greatest revision that the lost API server can have had.
The page docs/operate/recover.md tells where to read that revision. If the token of a Lease or
Variable is greater than both --floor and the present revision, that token is the floor.
After a restore of etcd no such token exists, because Leases go back with the revision.
Each pod can write any token into its own Lease. So the command prints the Lease whose
token is the floor. The command refuses a token far above --floor: use that token as
--floor. If no storage can have seen the token, leave its Lease or Variable out by --ignore.

While the command writes, no pod can acquire a slot, so no standby takes over. If the API
server refuses the change of a Lease, the command prints that Lease, and continues with
the others. After other errors, such as those of a connection, the command tries again for
25 s. Then the command ends with exit code 2, and the pauses stay.

Before this command, wait for the longest lease duration without an API server, as
docs/operate/recover.md describes. The command does not replace that wait. If the command was
interrupted, run the command again.

Exit codes: 0 all holders have tokens above the floor; 1 a holder has not yielded in
time, and the command prints that holder; 2 error; 3 refused, and nothing is written.`

// mostWrites bounds the writes that raise etcd's revision above the floor. The floor is the value
// of --floor, or a greater token in the cluster. At 400 writes per second, the writes take 21
// minutes, in which no slot can be acquired. Until the next compaction, all these writes
// together take 250 MB in etcd. At two gigabytes, etcd would refuse every write.
const mostWrites = 500_000

func (p *plugin) recoverCommand() *cobra.Command {
	r := recovering{std: p.std, timeout: 5 * time.Minute}
	c := &cobra.Command{
		Use: "recover", Short: "Make fencing tokens grow again after a restore of etcd", Long: recoverLong, Args: noArguments,
		Example: `  kubectl metaparticle recover --floor 48000 --dry-run
  kubectl metaparticle recover --floor 48000 --ignore till/lock.migrate`,
	}
	flags := c.Flags()
	numberFlag(flags, &r.floor, "floor", "greatest `REVISION` that the lost API server can have had", "write the revision as a whole number")
	flags.BoolVar(&r.dryRun, "dry-run", false, "print the figures, and write nothing")
	durationFlag(flags, &r.timeout, "timeout", "`DURATION` of the wait for the holders at most; default: 5m")
	flags.StringArrayVar(&r.ignored, "ignore", nil, "`NAMESPACE[/NAME]` of a Lease or Variable, or of all in a namespace, whose token no storage can have seen; may be repeated")
	c.RunE = p.runs(func(ctx context.Context, _ []string) (code int, err error) {
		if r.cluster, _, err = p.open(unlimited); err != nil {
			return exitError, err
		}
		return r.run(ctx)
	})
	return c
}

func (r recovering) run(ctx context.Context) (int, error) {
	before, err := r.read(ctx)
	if err != nil {
		return exitError, err
	}
	floor := max(r.floor, before.greatest())
	say(r.std.out, "revision %d, floor %d; %d slots, %d of them held with a token up to the floor",
		before.revision, floor, len(before.slots), len(before.outdated(floor)))
	if floor > r.floor {
		say(r.std.out, "the floor is the token of %s", before.foreign[0])
	}
	if refused := r.refuses(before, floor); refused != "" {
		return exitError, refused
	}
	if r.dryRun {
		return exitOK, nil
	}
	var unpaused failures
	if before.revision <= floor {
		if unpaused, err = r.raise(ctx, before, floor); err != nil {
			return exitError, err
		}
	}
	code, err := r.renew(ctx, floor)
	if err == nil && len(unpaused) > 0 {
		return exitError, fmt.Errorf("%d slots had no pause during the writes, so tokens of these slots can repeat: "+
			"apply the remedies, and repeat the command with --floor %d", len(unpaused), floor)
	}
	return code, err
}

// refuses returns the reason why the command writes nothing; empty for none.
func (r recovering) refuses(before state, floor uint64) refusal {
	near := max(r.floor, before.revision)
	switch {
	case r.floor == 0 && before.interrupted():
		// Only the person knows the floor of the earlier command, which may be greater than
		// every token.
		return "slots are still paused by an earlier recover: repeat that command with its floor (--floor)"
	case floor == 0:
		return "no Lease or Variable has a token above the revision: name the floor (--floor), from before the restore"
	case floor > before.revision && floor-before.revision > mostWrites:
		says := fmt.Sprintf("the floor%s is %d revisions away, and the command writes at most %d: repeat the restore with --bump-revision",
			before.source(floor), floor-before.revision, mostWrites)
		if before.greatest() > r.floor {
			says += "; or, if no storage can have seen that token, leave it out: " + before.ignoring(near)
		}
		return refusal(says)
	case floor > near && floor-near > mostAbove:
		return refusal(fmt.Sprintf("the token %d of %s is %d above the floor or revision %d, and each pod can write any token into its Lease: "+
			"if storage can have seen the token, repeat the command with --floor %d; if not, leave it out: %s",
			floor, before.foreign[0], floor-near, near, floor, before.ignoring(near)))
	}
	return ""
}

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

// patience is the time for which the command repeats a change after errors that can end soon. The
// election of another leader of etcd takes less time, and so does the restart of one of several API
// servers. The time includes requests without an answer.
const patience = 25 * time.Second

// The time between two attempts begins with firstPause, and doubles up to longestPause. So the next
// attempt follows at most longestPause after the return of an API server.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 2 * time.Second
)

// patiently repeats an attempt until its success or an error that stays. The function "stays"
// recognizes such an error. All other errors end the attempts after [patience].
func patiently(ctx context.Context, stays func(error) bool, attempt func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := attempt(limited)
		if err == nil || stays(err) {
			return err
		}
		// After the end of the patience, an error shows only this end. Such an error must not
		// replace the earlier error, which shows the cause.
		if last == nil || limited.Err() == nil {
			last = err
		}
		select {
		case <-time.After(pause):
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("no success for %v: %w", patience, last)
		}
	}
}

// refusesLease reports whether the API server refuses a change because of this Lease alone. Later
// attempts have the same result, but attempts for other Leases can succeed.
//
// A user of a namespace can fill a Lease up to etcd's limit. The API server passes etcd's error on
// as an internal error, so only the text tells this error from an error of the cluster.
func refusesLease(err error) bool {
	if apierrors.IsInternalError(err) {
		return strings.Contains(err.Error(), "etcdserver: request is too large") || strings.Contains(err.Error(), "message larger than max")
	}
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsConflict(err)
}

// refusesWrites reports whether the error is an answer by which the API server refuses a write
// for good. An error without an answer can end soon, so the result is false. The result is also
// false for an answer that asks for a repetition. An answer that does not recognize the user
// gives false, too, because a starting API server can send such an answer.
func refusesWrites(err error) bool {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return false
	}
	code := answer.Status().Code
	switch code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	}
	return code >= 400 && code < 500
}
