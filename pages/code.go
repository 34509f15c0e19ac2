// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"html"
	"io"
	"regexp"

	"github.com/gomarkdown/markdown/ast"
)

// Span is a part of a code block. Class is one of the letters that style.css gives a colour, or empty.
type Span struct{ Class, Text string }

// Colours divides the text of a code block into spans. The site of [tools/site] has colours. The console, which
// serves the same pages from the webhook's image, has none: a highlighter would add 4 MB to the webhook's program.
type Colours func(language, code string) []Span

var (
	// language matches the name of a language at the beginning of a code block's info string.
	language = regexp.MustCompile(`^[a-z]+`)
	class    = regexp.MustCompile(`^[a-z]$`)
)

// code writes a code block. page.js adds the button that copies it.
func (s *site) code(w io.Writer, node *ast.CodeBlock) {
	name, of, text := string(language.Find(node.Info)), "", string(node.Literal)
	if name != "" {
		of = fmt.Sprintf(" class=\"language-%s\"", name)
	}
	spans := []Span{{Text: text}}
	if s.colours != nil && name != "" {
		spans = s.colours(name, text)
	}
	fmt.Fprintf(w, "\n<div class=\"code\"><pre tabindex=\"0\"><code%s>", of)
	for _, span := range spans {
		if class.MatchString(span.Class) {
			fmt.Fprintf(w, "<span class=\"%s\">%s</span>", span.Class, html.EscapeString(span.Text))
		} else {
			fmt.Fprint(w, html.EscapeString(span.Text))
		}
	}
	fmt.Fprint(w, "</code></pre></div>\n")
}
