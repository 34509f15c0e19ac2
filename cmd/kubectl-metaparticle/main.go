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
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
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

const (
	exitOK = iota
	// exitRefused means that the webhook would refuse a pod, or that the command refused to
	// write. For "explain", the code means that a claim is not in force. For "status", the code means that a slot lacks a holder that serves. For "check", the
	// code means that a check failed.
	exitRefused
	// exitError means that the command could not answer, or for "check", could not do a check.
	exitError
	// exitUnreached means that the command has written the request, but that the
	// wanted state did not follow in time.
	exitUnreached
)

// refusal is the sentence by which a command refuses to write.
type refusal string

func (r refusal) Error() string { return string(r) }

// exitCode writes the error of a command in one line, and returns the exit code of the command. An
// error that joins several errors has several lines, and a semicolon replaces each line feed.
func exitCode(code int, err error, out io.Writer) int {
	refused, ok := errors.AsType[refusal](err)
	switch {
	case ok:
		say(out, "refused: %s", refused)
		return exitRefused
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		say(out, "error: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return exitError
	}
	return code
}

// wholeCluster has the commands that act on the whole cluster, and so have no flag -n.
var wholeCluster = []string{"check", "console", "recover"}

// oneNamespace has the commands that act on one namespace, and so have no flag -A.
var oneNamespace = []string{"explain", "forget", "pause", "resume", "yield"}

// parse reads flags before and after the arguments, as kubectl does. The result has the
// arguments without the flags. Only -h prints the help, because a long help would hide an error.
func parse(flags *flag.FlagSet, args []string) ([]string, error) {
	help, out := flags.Usage, flags.Output()
	flags.Usage = func() {}
	flags.SetOutput(io.Discard)
	var rest []string
	for {
		err := flags.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(out)
			help()
			return nil, err
		}
		if err != nil {
			return nil, explained(flags.Name(), err)
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

// explained returns the error about the flags of a command, with a hint at the command's help. If a
// command acts on the whole cluster, the error about the flag -n says so. If a command acts on one
// namespace, the error about the flag -A says so.
func explained(command string, err error) error {
	_, unknown, _ := strings.Cut(err.Error(), "flag provided but not defined: ")
	one, all := unknown == "-n" || unknown == "-namespace", unknown == "-A" || unknown == "-all-namespaces"
	switch {
	case slices.Contains(wholeCluster, command) && (one || all):
		return fmt.Errorf("%s acts on the whole cluster: leave out %s", command, unknown)
	case slices.Contains(oneNamespace, command) && all:
		return fmt.Errorf("%s acts on one namespace: leave out %s, and name the namespace by -n", command, unknown)
	}
	return fmt.Errorf("%w (-h for help)", err)
}

// durationFlag defines a flag with a duration. The error about a wrong value says how to write a
// duration.
func durationFlag(flags *flag.FlagSet, to *time.Duration, name, usage string) {
	flags.Func(name, usage, func(value string) error {
		read, err := time.ParseDuration(value)
		if err != nil || read < 0 {
			return errors.New("write a duration with its unit, such as 30s or 5m")
		}
		*to = read
		return nil
	})
}

// numberFlag defines a flag with a number that is not negative. The error about a wrong value has the
// text "write", which says how to write the number.
func numberFlag[N int | uint64](flags *flag.FlagSet, to *N, name, usage, write string) {
	flags.Func(name, usage, func(value string) error {
		read, err := strconv.ParseUint(value, 0, 63)
		if err != nil {
			return errors.New(write)
		}
		*to = N(read)
		return nil
	})
}

// release is the version of this build, if the build belongs to a release. The linker then writes
// the version into this variable.
var release string

// versionOfBuild returns the version of this build. If the build belongs to no release, the
// function returns the version that Go makes from the commit of the checkout.
func versionOfBuild() string {
	built, ok := debug.ReadBuildInfo()
	if release == "" && ok {
		return built.Main.Version
	}
	return cmp.Or(release, "unknown")
}

const versionUsage = `Prints the version of this plugin. Without a cluster, the command cannot tell the
version of the installation: see kubectl metaparticle check.

  kubectl metaparticle version
`

func versionCommand(_ context.Context, args []string, std stdio) (int, error) {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	flags.SetOutput(std.out)
	flags.Usage = func() { fmt.Fprint(std.out, versionUsage) }
	rest, err := parse(flags, args)
	switch {
	case err != nil:
		return exitError, err
	case len(rest) > 0:
		return exitError, fmt.Errorf("version takes no argument: leave out %q", rest[0])
	}
	say(std.out, "%s", versionOfBuild())
	return exitOK, nil
}
