// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"unicode"
)

// Exit codes.
const (
	exitOK = iota
	// exitRefused means that the webhook would refuse a pod, or that the command refused to
	// write. For "status", the code means that a slot lacks a holder that serves. For "check", the
	// code means that a check failed.
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

// harmless returns writers that replace control characters, for a terminal. Pods and their owners
// write some of the texts, and control characters could change what a person sees.
func (s stdio) harmless() stdio {
	return stdio{s.in, printable{s.out}, printable{s.err}}
}

// printable replaces the control characters of a text, except line feeds and tabs.
type printable struct{ out io.Writer }

// Write implements io.Writer.
func (p printable) Write(text []byte) (int, error) {
	clean := bytes.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, text)
	if _, err := p.out.Write(clean); err != nil {
		return 0, err
	}
	return len(text), nil
}

// exitCode writes the error of a command, and returns the exit code of the command.
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
// arguments without the flags.
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
