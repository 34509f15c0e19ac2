// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bytes"
	_ "embed"
	"fmt"
	"html"
	"slices"
	"strings"
)

// Policy is the Content-Security-Policy of each page.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"

//go:embed layout.html
var layout string

// name is the title of the start page, and the end of each other title.
const name = "Metaparticle"

// render returns the whole page: the file layout.html as a frame around the HTML of the page.
// The method does not use package html/template, which calls methods by name. So that package
// would link all methods of all types into the webhook, and add 10 MB.
func (s *site) render(p *page, groups [][]*page) []byte {
	title := p.title
	if title != name {
		title += " – " + name
	}
	return []byte(strings.NewReplacer(
		"[[title]]", html.EscapeString(title), "[[up]]", p.up(), "[[policy]]", html.EscapeString(Policy),
		"[[pages]]", navigation(p, groups), "[[contents]]", contents(p),
		"[[body]]", string(bytes.TrimSpace(s.body(p)))+"\n", "[[neighbours]]", neighbours(p, slices.Concat(groups...)),
	).Replace(layout))
}

// navigation returns a list of all pages, with the group of the page p unfolded.
func navigation(p *page, groups [][]*page) string {
	var b strings.Builder
	for i, pages := range groups {
		if len(pages) == 0 {
			continue
		}
		open := ""
		if slices.Contains(pages, p) {
			open = " open"
		}
		fmt.Fprintf(&b, "<details%s>\n<summary>%s</summary>\n<ul>\n", open, html.EscapeString(order[i].title))
		for _, other := range pages {
			here := ""
			if other == p {
				here = ` aria-current="page"`
			}
			fmt.Fprintf(&b, "<li><a href=\"%s\"%s>%s</a></li>\n", html.EscapeString(p.up()+other.path), here, html.EscapeString(other.title))
		}
		b.WriteString("</ul>\n</details>\n")
	}
	return b.String()
}

// contents returns the table of contents of a page with three headings or more below its title.
func contents(p *page) string {
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
		return ""
	}
	return "<nav class=\"contents\" aria-label=\"On this page\">\n<details>\n<summary>On this page</summary>\n<ul>\n" +
		items.String() + "</ul>\n</details>\n</nav>\n"
}

// neighbours returns links to the pages before and after the page p, in the order of the
// navigation. The argument "line" has all pages in that order.
func neighbours(p *page, line []*page) string {
	var b strings.Builder
	write := func(rel, word string, i int) {
		if i >= 0 && i < len(line) {
			fmt.Fprintf(&b, "<a rel=\"%s\" href=\"%s\">%s: %s</a>\n", rel, html.EscapeString(p.up()+line[i].path), word, html.EscapeString(line[i].title))
		}
	}
	here := slices.Index(line, p)
	write("prev", "Before", here-1)
	write("next", "Next", here+1)
	return b.String()
}
