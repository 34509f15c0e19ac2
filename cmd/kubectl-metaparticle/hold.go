// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metaparticle-io/metaparticle/api"
)

const holdLong = `Runs COMMAND while you hold a lock, beside the pods that claim it: neither a pod nor
another hold of the lock runs at the same time. The command waits for the lock, renews
it, and releases it once COMMAND and all processes that it started are dead: what COMMAND
leaves in the background is killed at its end. COMMAND finds the fencing token in
METAPARTICLE_FENCING_TOKEN.

If the renewals fail, COMMAND gets SIGTERM, and all its processes are killed before
another holder can begin; so it is if hold itself is killed. kubectl metaparticle
pause --stop ends COMMAND, too.

Limits. hold finds the processes that COMMAND starts on this machine as its descendants:
a container of docker run, a program behind ssh or kubectl exec, and a statement in a
database's server go on. A suspended computer runs nothing, also no watchdog: after it
wakes, COMMAND is killed at once if its time is over. A paused virtual machine does not
know how long it was paused: COMMAND runs on until a renewal is refused, or until its
time is over as the machine counts it. In both cases a write that was on its way can
still arrive. Storage that must not see it compares the fencing token. Kill or stop
both hold and its watchdog (hold-guard), and processes of COMMAND can run on beside the
next holder.
COMMAND must run as you: hold may not kill a program of another user, as sudo starts.
hold needs Linux, where it can find all descendants of COMMAND.

You need the right to get, watch and update Leases. The Lease names you as its holder.
If no pod claims the lock, you also need the right to create Leases: the first hold makes
the Lease, and waits for --lease-duration, because a holder of an earlier Lease could
still run. So give all holds of a name the same --lease-duration.

Exit codes: that of COMMAND, or 128 and the number of the signal that ended it. Before
COMMAND starts: 1 the lock was not free within --wait; 2 error; 3 refused. If the lock
is lost while COMMAND runs: 1. A signal while hold waits for the lock ends the wait; a
second one ends hold even if the API server has not stored the release.`

// guardName is the first argument of the watchdog. It is a process of its own, and the parent of the
// command, so that neither a SIGKILL nor a SIGSTOP of "hold" leaves the command alone.
const guardName = "hold-guard"

// holding is one hold of a lock by a person.
type holding struct {
	std           stdio
	namespace     string
	slot          string
	command       []string
	wait          time.Duration
	leaseDuration time.Duration
}

func (p *plugin) holdCommand() *cobra.Command {
	h := holding{std: p.std, leaseDuration: api.DefaultLeaseDuration}
	c := &cobra.Command{
		Use: "hold lock/NAME -- COMMAND [ARGS]", Short: "Run a command while you hold a lock", Long: holdLong,
		Example: `  kubectl metaparticle hold lock/migrate -- ./migrate.sh
  kubectl metaparticle hold lock/terraform-prod --wait 30m -- terraform apply -input=false
  kubectl metaparticle hold lock/migrate --wait 5m -- psql -f fix.sql`,
		ValidArgsFunction: p.locksThenCommand,
	}
	durationFlag(c.Flags(), &h.wait, "wait", "`DURATION` of the wait for the lock at most; default: no bound")
	durationFlag(c.Flags(), &h.leaseDuration, "lease-duration", fmt.Sprintf("`DURATION` after which others take the lock from a dead holder, %s to %s; default: %s",
		api.MinLeaseDuration, api.MaxLeaseDuration, api.DefaultLeaseDuration))
	c.RunE = p.runs(func(ctx context.Context, args []string) (code int, err error) {
		dash := c.ArgsLenAtDash()
		if dash != 1 || len(args) < 2 {
			return exitError, errors.New("write hold lock/NAME -- COMMAND ARGS")
		}
		name, ok := strings.CutPrefix(args[0], api.Lock.Name()+"/")
		if h.slot = api.LockLease(name); !ok || name == "" || !api.IsSlot(h.slot) {
			return exitError, fmt.Errorf("%q is no lock: write lock/NAME", args[0])
		}
		h.command = args[1:]
		opened, namespace, err := p.openApart()
		if err != nil {
			return exitError, err
		}
		h.namespace = namespace
		return h.run(ctx, opened)
	})
	return c
}
