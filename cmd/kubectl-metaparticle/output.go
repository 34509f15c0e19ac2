// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// harmless returns writers that replace dangerous characters, for a terminal. Pods and their owners
// write some of the texts, and such characters could change what a person sees.
func (s stdio) harmless() stdio {
	return stdio{s.in, printable{out: s.out}, printable{out: s.err}}
}

// terminal returns the terminal that shows the output, for control characters of our own; nil if the
// output is no terminal.
func (s stdio) terminal() io.Writer {
	p, _ := s.out.(printable)
	if f, ok := p.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
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
		case unicode.IsControl(r), !p.own && api.ControlsTerminal(r):
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
	line := strings.NewReplacer("##[", "#?[", "##vso[", "#?vso[").Replace(api.OneLine(text))
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
func bounded(text string) string { return api.Brief(text, mostForeign) }

// outputFlag defines -o for a command whose data a program can read. The formats "own" are the
// command's, beside json, yaml and jsonpath.
func outputFlag(c *cobra.Command, to *string, own ...string) {
	formats := append(own, "json", "yaml", "jsonpath=TEMPLATE")
	c.Flags().StringVarP(to, "output", "o", "", "one of "+strings.Join(formats, ", ")+"; default: text for people")
	_ = c.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return append(own, "json", "yaml", "jsonpath="), cobra.ShellCompDirectiveNoFileComp
	})
}

// judgeOutput returns an error for a format that the command does not have.
func judgeOutput(output string, own ...string) error {
	if output == "" || isData(output) || slices.Contains(own, output) {
		return nil
	}
	return fmt.Errorf("-o is %q: write one of %s, json, yaml, jsonpath=TEMPLATE", output, strings.Join(append([]string{"table"}, own...), ", "))
}

// isData reports whether a program reads the output.
func isData(output string) bool {
	return output == "json" || output == "yaml" || strings.HasPrefix(output, "jsonpath")
}

// encoded returns the value for a program. Tenants write some of the texts, and a CI job may print the
// output. So no text is a command to a CI system ([inOneLine]). JSON has an escape for the second
// character of such a command, so a program reads the same text. Elsewhere the character becomes a
// question mark. A text for YAML must be one line.
func encoded(value any, output string) ([]byte, error) {
	switch output {
	case "yaml":
		text, err := yaml.Marshal(value)
		return withoutCommands(text, "?"), err
	case "json":
		text, err := json.MarshalIndent(value, "", "  ")
		return append(withoutCommands(text, `\u0023`), '\n'), err
	}
	printer, err := genericclioptions.NewJSONPathPrintFlags("", false).ToPrinter(output)
	if err != nil {
		return nil, err
	}
	var object unstructured.Unstructured
	text, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(text, &object.Object)
	}
	var out bytes.Buffer
	if err == nil {
		err = printer.PrintObj(&object, &out)
	}
	var lines bytes.Buffer
	for line := range strings.Lines(out.String()) {
		say(&lines, "%s", strings.TrimSuffix(line, "\n"))
	}
	return lines.Bytes(), err
}

// withoutCommands replaces the second character of each command to a CI system.
func withoutCommands(text []byte, second string) []byte {
	for _, end := range []string{"[", "vso["} {
		text = bytes.ReplaceAll(text, []byte("##"+end), []byte("#"+second+end))
	}
	return text
}
