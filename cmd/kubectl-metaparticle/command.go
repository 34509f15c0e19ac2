// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// Exit codes.
const (
	exitOK = iota
	// exitRefused means that the webhook would refuse a pod, that the command refused to
	// write, or that a slot lacks a holder that serves.
	exitRefused
	// exitError means that the command could not answer.
	exitError
	// exitUnreached means that the command has written the request, but that the
	// wanted state did not follow in time.
	exitUnreached
)

// refusal is the sentence by which a command refuses to write.
type refusal string

func (r refusal) Error() string { return string(r) }

type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// exitCode writes the error of a command, and returns its exit code.
func exitCode(code int, err error, out io.Writer) int {
	refused, ok := errors.AsType[refusal](err)
	switch {
	case ok:
		fmt.Fprintln(out, "refused:", refused)
		return exitRefused
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(out, "error:", err)
		return exitError
	}
	return code
}

// parse reads flags before and after the arguments, as kubectl does. The result has the
// arguments.
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
