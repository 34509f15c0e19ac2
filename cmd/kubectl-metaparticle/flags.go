// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
