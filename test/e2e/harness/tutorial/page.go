// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/gomarkdown/markdown"
	"github.com/gomarkdown/markdown/ast"
	"github.com/gomarkdown/markdown/parser"
)

// Step is a manifest that a person who follows the page writes, or a command that the person runs.
type Step struct {
	// File and Text are the name and the text of a manifest; both are empty for a command.
	File, Text string
	// Command is the command, and Output has the lines that the page shows below it.
	Command string
	Output  []string
	// Fails reports that the command may fail. The next command then prints the exit code.
	Fails bool
}

// fileName matches the first line of a manifest, a comment with the name of the file.
var fileName = regexp.MustCompile(`^# ([a-z0-9-]+\.yaml)\n`)

// exitCode is the command that shows the exit code of the previous command.
const exitCode = "echo $?"

// Parse returns the steps of a page, in their order.
func Parse(page []byte) (steps []Step, err error) {
	root := markdown.Parse(page, parser.NewWithExtensions(parser.CommonExtensions))
	ast.WalkFunc(root, func(node ast.Node, entering bool) ast.WalkStatus {
		block, ok := node.(*ast.CodeBlock)
		if !ok || !entering || err != nil {
			return ast.GoToNext
		}
		switch string(block.Info) {
		case "yaml":
			if match := fileName.FindSubmatch(block.Literal); match != nil {
				steps = append(steps, Step{File: string(match[1]), Text: string(block.Literal)})
			}
		case "console":
			var session []Step
			session, err = commands(block.Literal)
			steps = append(steps, session...)
		}
		return ast.GoToNext
	})
	for i := range steps[:max(0, len(steps)-1)] {
		steps[i].Fails = steps[i+1].Command == exitCode
	}
	return steps, err
}

// commands returns the commands of a session, with the output that the session shows.
func commands(session []byte) (steps []Step, err error) {
	continued := false
	for line := range strings.Lines(string(bytes.TrimRight(session, "\n"))) {
		line = strings.TrimRight(line, " \n")
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch last := len(steps) - 1; {
		case continued:
			steps[last].Command += "\n" + line
		case isCommand:
			steps = append(steps, Step{Command: command})
		case last < 0:
			return nil, fmt.Errorf("a session begins with output: %q", line)
		default:
			steps[last].Output = append(steps[last].Output, line)
			continue
		}
		continued = strings.HasSuffix(line, `\`)
	}
	return steps, nil
}
