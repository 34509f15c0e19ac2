// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command kubectl-metaparticle is a plugin of kubectl. Its command "inject"
// shows, without a cluster, the webhook's changes to a manifest. The command
// "explain" shows why a pod or workload of a cluster is, or is not, gated. Both
// commands run the webhook's own code, so that their messages are the webhook's.
//
// The commands "status" and "console" show slots. The commands "yield", "pause", "resume", "forget"
// and "recover" write annotations on the Leases of slots, which agents watch. If a command refuses,
// the command writes nothing. The command "check" judges an installation. The commands measure
// durations by the clock of this computer. Times in "status" come from the clocks of the cluster's
// nodes.
//
// A cluster may change a pod in ways that the command "inject" cannot know. A manifest does
// not contain the cluster's defaults, LimitRanges, namespace labels and other webhooks.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

var usage = `Usage:
  kubectl metaparticle inject -f FILE|- [--pods] [-o yaml|diff] [--offline]
  kubectl metaparticle explain [-n NAMESPACE] [-o json|yaml] KIND/NAME
  kubectl metaparticle status [-n NAMESPACE|-A] [-w] [-o json|yaml] [SLOTS]
  kubectl metaparticle yield [-n NAMESPACE] [--to POD] SLOTS
  kubectl metaparticle pause [-n NAMESPACE] [--stop] SLOTS
  kubectl metaparticle resume [-n NAMESPACE] SLOTS
  kubectl metaparticle forget [-n NAMESPACE] SLOT KEY|barrier/NAME.UID.0
  kubectl metaparticle console [--port PORT]
  kubectl metaparticle recover [--floor N] [--ignore NAMESPACE[/NAME]] [--dry-run]
  kubectl metaparticle check [--before] [--image IMAGE] [-o json|yaml]
  kubectl metaparticle version

inject   shows the webhook's changes to a manifest
explain  tells why a pod or workload is gated or not
status   shows slots with their holders and standbys
yield    hands a slot over to another pod
pause    keeps pods from acquiring a slot
resume   ends a pause
forget   lets pods do the work of a key again
console  shows all slots in the browser
recover  makes fencing tokens grow again after a restore of etcd
check    judges an installation, or a cluster before an installation
version  prints the version of this plugin
Each command has more help: kubectl metaparticle COMMAND -h

SLOTS names a workload or a pod, such as deployment/biller or pod/biller-0, or a
slot as status prints it, such as singleton.deployment.biller; or
barrier/NAME, ` + shared() + `.

Exit codes: 0 done; 1 refused, or of explain: a claim is not in force, or of
check: a check failed, or of status: a claimed slot is not paused, and has no
holder that serves or starts; 2 error, or of check: a check is unknown;
3 the command has written the request, but the wanted state did not follow in time.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if filepath.Base(os.Args[0]) == completer {
		complete(ctx, slices.Sorted(maps.Keys(command)), os.Args[1:], os.Stdout)
		os.Exit(exitOK)
	}
	code := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}.harmless())
	stop()
	os.Exit(code)
}

var command = map[string]func(context.Context, []string, stdio) (int, error){
	"inject": injectCommand, "explain": explainCommand, "status": statusCommand,
	"yield": yieldCommand, "pause": pauseCommand, "resume": resumeCommand, "forget": forgetCommand,
	"check": checkCommand, "console": consoleCommand, "recover": recoverCommand, "version": versionCommand,
}

func run(ctx context.Context, args []string, std stdio) int {
	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help") {
		fmt.Fprint(std.out, usage)
		return exitOK
	}
	if len(args) == 0 {
		fmt.Fprint(std.err, usage)
		return exitError
	}
	if strings.HasPrefix(args[0], "-") {
		return exitCode(exitError, fmt.Errorf("%q is no command: write the command first, and then its flags", args[0]), std.err)
	}
	if command[args[0]] == nil {
		known := strings.Join(slices.Sorted(maps.Keys(command)), ", ")
		return exitCode(exitError, fmt.Errorf("%q is no command: write one of %s", args[0], known), std.err)
	}
	code, err := command[args[0]](ctx, args[1:], std)
	return exitCode(code, err, std.err)
}
