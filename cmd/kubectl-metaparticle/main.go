// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command kubectl-metaparticle is a plugin of kubectl. Its command "inject"
// shows, without a cluster, the webhook's changes to a manifest. The command
// "explain" shows why a pod or workload of a cluster is, or is not, gated. Both
// run the webhook's own code, so that their messages are the webhook's.
//
// Not guaranteed by inject: the changes by a cluster. A manifest does not contain
// the cluster's defaults, LimitRanges, namespace labels and other webhooks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK = iota
	// exitRefused means that the webhook would refuse a pod.
	exitRefused
	// exitError means that the command could not answer.
	exitError
)

const usage = `Usage:
  kubectl metaparticle inject -f FILE|- [--pods] [-o yaml|diff] [--offline]
  kubectl metaparticle explain [-n NAMESPACE] KIND/NAME

inject shows what the webhook would make of a manifest; explain says why a pod
or workload of the cluster is, or is not, gated. -h after either says more.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

type stdio struct {
	in       io.Reader
	out, err io.Writer
}

func run(ctx context.Context, args []string, std stdio) int {
	command := map[string]func(context.Context, []string, stdio) (int, error){
		"inject": injectCommand, "explain": explainCommand,
	}
	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help") {
		fmt.Fprint(std.out, usage)
		return exitOK
	}
	if len(args) == 0 || command[args[0]] == nil {
		fmt.Fprint(std.err, usage)
		return exitError
	}
	code, err := command[args[0]](ctx, args[1:], std)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(std.err, "error:", err)
		return exitError
	}
	return code
}

// parse reads flags before and after the arguments, as kubectl does. parse
// returns the arguments.
func parse(flags *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}
