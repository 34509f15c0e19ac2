// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"html"
	"io"
	"regexp"

	"github.com/gomarkdown/markdown"
	"github.com/gomarkdown/markdown/ast"
	rendering "github.com/gomarkdown/markdown/html"
)

// body returns the HTML of a page's Markdown text. Before the call, [page.check] must have found no
// mistake in the page.
func (s *site) body(p *page) []byte {
	hook := func(w io.Writer, node ast.Node, entering bool) (ast.WalkStatus, bool) {
		return s.write(p, w, node, entering)
	}
	return markdown.Render(p.root, rendering.NewRenderer(rendering.RendererOptions{RenderNodeHook: hook}))
}

// write writes the nodes for which the HTML of the library does not fit. The second result reports
// whether the method has written the node.
func (s *site) write(p *page, w io.Writer, node ast.Node, entering bool) (ast.WalkStatus, bool) {
	switch node := node.(type) {
	case *ast.Text:
		fmt.Fprint(w, html.EscapeString(plain(node)))
	case *ast.HTMLBlock, *ast.HTMLSpan:
		// The page leaves out HTML comments. [page.check] has refused all other HTML.
	case *ast.Heading:
		if entering {
			fmt.Fprintf(w, "\n<h%d id=\"%s\">", node.Level, html.EscapeString(p.names[node]))
		} else {
			fmt.Fprintf(w, " <a class=\"anchor\" href=\"#%[1]s\" aria-label=\"Link to this heading: %[2]s\">#</a></h%[3]d>\n",
				html.EscapeString(p.names[node]), html.EscapeString(textOf(node)), node.Level)
		}
	case *ast.Link:
		s.link(p, w, node, entering)
	case *ast.Image:
		return s.image(p, w, node, entering), true
	case *ast.CodeBlock:
		class := ""
		if name := language.Find(node.Info); name != nil {
			class = fmt.Sprintf(" class=\"language-%s\"", name)
		}
		fmt.Fprintf(w, "\n<pre tabindex=\"0\"><code%s>%s</code></pre>\n", class, html.EscapeString(string(node.Literal)))
	case *ast.Table:
		if entering {
			fmt.Fprint(w, "\n<div class=\"table\" tabindex=\"0\"><table>\n")
		} else {
			fmt.Fprint(w, "</table></div>\n")
		}
	case *ast.TableCell:
		s.cell(w, node, entering)
	case *ast.HorizontalRule:
		fmt.Fprint(w, "\n<hr>\n")
	default:
		return ast.GoToNext, false
	}
	return ast.GoToNext, true
}

// language matches the name of a language at the beginning of a code block's info string.
var language = regexp.MustCompile(`^[a-z]+`)

func (s *site) link(p *page, w io.Writer, node *ast.Link, entering bool) {
	if !entering {
		fmt.Fprint(w, "</a>")
		return
	}
	to, err := s.resolve(p, string(node.Destination))
	if err != nil { // never: page.check refuses a page with such a destination
		panic(err)
	}
	fmt.Fprintf(w, "<a href=\"%s\">", html.EscapeString(to.href))
}

// image writes an image that the site has, and a link to any other image.
func (s *site) image(p *page, w io.Writer, node *ast.Image, entering bool) ast.WalkStatus {
	if !entering {
		return ast.GoToNext
	}
	to, err := s.resolve(p, string(node.Destination))
	if err != nil { // never: page.check refuses a page with such a destination
		panic(err)
	}
	text, href := html.EscapeString(textOf(node)), html.EscapeString(to.href)
	if to.shown {
		fmt.Fprintf(w, "<img src=\"%s\" alt=\"%s\" loading=\"lazy\">", href, text)
	} else {
		fmt.Fprintf(w, "<a href=\"%s\">%s</a>", href, text)
	}
	return ast.SkipChildren
}

// cell writes a cell. A header without text is an ordinary cell, because assistive software would
// announce an empty header.
func (s *site) cell(w io.Writer, node *ast.TableCell, entering bool) {
	name, class := "td", ""
	if node.IsHeader && textOf(node) != "" {
		name = "th"
	}
	if align := node.Align.String(); align != "" {
		class = fmt.Sprintf(" class=\"%s\"", align)
	}
	switch {
	case !entering:
		fmt.Fprintf(w, "</%s>", name)
	case name == "th":
		fmt.Fprintf(w, "<th scope=\"col\"%s>", class)
	default:
		fmt.Fprintf(w, "<td%s>", class)
	}
}
