// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"io"
	"strings"
)

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
