// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bytes"
	_ "embed"
	"fmt"
	"html"
	"io"
	"strings"

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
		s.code(w, node)
	case *ast.Table:
		s.table(w, node, entering)
	case *ast.TableCell:
		s.cell(w, node, entering)
	case *ast.HorizontalRule:
		fmt.Fprint(w, "\n<hr>\n")
	default:
		return ast.GoToNext, false
	}
	return ast.GoToNext, true
}

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

// Policy is the Content-Security-Policy of each page.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"

//go:embed layout.html
var layout string

// name is the title of the start page, and the end of each other title.
const name = "Metaparticle"

// render returns the whole page: the file layout.html as a frame around the HTML of the page.
// The method does not use package html/template, which calls methods by name. So that package
// would link all methods of all types into the webhook, and add 10 MB.
func (s *site) render(p *page) []byte {
	title := p.title
	if title != name {
		title += " – " + name
	}
	button, table := contents(p)
	class := ""
	if p.source == start {
		class, button, table = ` class="start"`, "", ""
	}
	return []byte(strings.NewReplacer(
		"[[class]]", class, "[[title]]", html.EscapeString(title), "[[up]]", p.up(), "[[policy]]", html.EscapeString(Policy),
		"[[pages]]", s.menu(p), "[[contents-button]]", button, "[[contents]]", table,
		"[[body]]", string(bytes.TrimSpace(s.body(p)))+"\n"+s.lists(p), "[[neighbours]]", s.neighbours(p),
	).Replace(layout))
}

// contents returns the table of contents of a page with three headings or more below its title, and the button that
// opens the table on a narrow screen. On a wide screen the table is beside the text, and the button is hidden.
func contents(p *page) (button, table string) {
	var items strings.Builder
	count := 0
	for _, s := range p.sections {
		if s.level != 2 && s.level != 3 {
			continue
		}
		count++
		class := ""
		if s.level == 3 {
			class = ` class="deep"`
		}
		fmt.Fprintf(&items, "<li%s><a href=\"#%s\">%s</a></li>\n", class, html.EscapeString(s.anchor), html.EscapeString(s.title))
	}
	if count < 3 {
		return "", ""
	}
	return "<button class=\"opens contents-button\" popovertarget=\"contents\">On this page</button>\n",
		"<nav id=\"contents\" popover aria-labelledby=\"contents-title\">\n<p id=\"contents-title\">On this page</p>\n<ul>\n" +
			items.String() + "</ul>\n</nav>\n"
}
