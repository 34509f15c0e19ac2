// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

const recoverUsage = `Makes fencing tokens grow again after a restore of etcd without --bump-revision, or
after a restore of Leases into another cluster. A token is the API server's revision after
a write. So the command pauses all slots, and writes until the revision is above
the floor. Then each holder with a token up to the floor yields, and the pauses end.

The value of --floor is the greatest revision that the lost API server can have had.
The page docs/disaster.md tells where to read that revision. If the token of a Lease or
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
docs/disaster.md describes. The command does not replace that wait. If the command was
interrupted, run the command again.

Exit codes: 0 all holders have tokens above the floor; 1 refused, and nothing is written;
2 error; 3 a holder has not yielded in time, and the command prints that holder.

  kubectl metaparticle recover [--floor N] [--ignore NAMESPACE[/NAME]] [--dry-run] [--timeout D]
`

// mostWrites bounds the writes that raise etcd's revision above the floor. The floor is the value
// of --floor, or a greater token in the cluster. At 400 writes per second, the writes take 21
// minutes, in which no slot can be acquired. Until the next compaction, all these writes
// together take 250 MB in etcd. At two gigabytes, etcd would refuse every write.
const mostWrites = 500_000

func recoverCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newFlags("recover", recoverUsage, std)
	timeout, floor := 5*time.Minute, uint64(0)
	numberFlag(flags, &floor, "floor", "greatest `REVISION` that the lost API server can have had", "write the revision as a whole number")
	dryRun := flags.Bool("dry-run", false, "print the figures, and write nothing")
	durationFlag(flags, &timeout, "timeout", "`DURATION` of the wait for the holders at most; default: 5m")
	var ignored []string
	flags.Func("ignore", "`NAMESPACE[/NAME]` of a Lease or Variable, or of all in a namespace, whose token no storage can have seen; may be repeated", func(value string) error {
		ignored = append(ignored, value)
		return nil
	})
	rest, err := parse(flags, args)
	if err != nil {
		return exitError, err
	}
	if len(rest) > 0 {
		return exitError, refusal(fmt.Sprintf("recover takes no arguments, because the command covers all namespaces: leave out %q", rest[0]))
	}
	c, err := connection.unlimited()
	if err != nil {
		return exitError, err
	}
	return recovering{cluster: c, std: std, floor: floor, ignored: ignored, dryRun: *dryRun, timeout: timeout}.run(ctx)
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
