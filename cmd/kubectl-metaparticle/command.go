// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/metaparticle-io/metaparticle/console/view"
)

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

// wholeCluster has the commands that act on the whole cluster, and so have no flag -n.
var wholeCluster = []string{"check", "console", "recover"}

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

// refusal is the sentence by which a command refuses to write.
type refusal string

func (r refusal) Error() string { return string(r) }

type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// harmless returns writers that replace dangerous characters, for a terminal. Pods and their owners
// write some of the texts, and such characters could change what a person sees.
func (s stdio) harmless() stdio {
	return stdio{s.in, printable{out: s.out}, printable{out: s.err}}
}

// printable replaces the control characters of a text, except line feeds and tabs. The writer also
// replaces format characters, such as those that reverse the order of letters, and the separators
// of lines and paragraphs.
type printable struct {
	out io.Writer
	// own reports whether the text comes from a person's own file. The format characters of such a
	// text stay.
	own bool
}

// verbatim returns the writer for the content of the person's own files. An emoji in a ConfigMap
// may contain format characters, and must pass unchanged. But the writer removes the carriage
// return in front of a line feed.
func verbatim(out io.Writer) io.Writer {
	if p, ok := out.(printable); ok {
		return printable{out: p.out, own: true}
	}
	return out
}

// Write implements io.Writer.
func (p printable) Write(text []byte) (int, error) {
	shown := text
	if p.own {
		shown = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	}
	clean := bytes.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), !p.own && unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
			return '?'
		}
		return r
	}, shown)
	if _, err := p.out.Write(clean); err != nil {
		return 0, err
	}
	return len(text), nil
}

// say writes one line. Texts of the cluster, of a registry and of the person cannot begin another
// line, because say makes one line of the whole text. All lines for people come from say, or have
// passed [inOneLine].
func say(out io.Writer, format string, args ...any) {
	fmt.Fprintln(out, inOneLine(fmt.Sprintf(format, args...)))
}

// inOneLine returns the text in one line, without control and format characters. The line is no
// command to a CI system. GitHub reads commands at "::" in the beginning of a line, and at "##["
// anywhere. Azure Pipelines reads commands at "##vso[".
func inOneLine(text string) string {
	line := strings.NewReplacer("##[", "#?[", "##vso[", "#?vso[").Replace(view.OneLine(text))
	if strings.HasPrefix(strings.TrimSpace(line), "::") {
		return "?" + line
	}
	return line
}

// row writes one line of a table, with an indent. A text in one cell cannot begin another cell or
// line.
func row(table *tabwriter.Writer, cells ...string) {
	clean := make([]string, len(cells))
	for i, cell := range cells {
		clean[i] = inOneLine(cell)
	}
	fmt.Fprintf(table, "  %s\n", strings.Join(clean, "\t"))
}

// mostForeign is the largest number of bytes that a line shows of an error. The error comes from a
// registry or from the API server.
const mostForeign = 500

// bounded returns the text with at most [mostForeign] bytes.
func bounded(text string) string {
	if len(text) <= mostForeign {
		return text
	}
	end := mostForeign - len("…")
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

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
