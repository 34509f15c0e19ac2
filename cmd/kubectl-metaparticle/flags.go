// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// wholeCluster has the commands that act on the whole cluster, and so have no flag -n.
var wholeCluster = []string{"check", "console", "recover"}

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
// command acts on the whole cluster, the error about the flag -n says so.
func explained(command string, err error) error {
	_, unknown, _ := strings.Cut(err.Error(), "flag provided but not defined: ")
	if slices.Contains(wholeCluster, command) && (unknown == "-n" || unknown == "-namespace") {
		return fmt.Errorf("%s acts on the whole cluster: leave out %s", command, unknown)
	}
	return fmt.Errorf("%w (-h for help)", err)
}
