// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"cmp"
	"fmt"
	"html"
	"path"
	"slices"
	"strings"

	"github.com/gomarkdown/markdown/ast"
)

// group is a folder of pages. Its page is the README.md of the folder, or the Markdown file beside the folder that has
// the folder's name.
type group struct {
	title, folder string
	// first are the Markdown files that a reader should see first, in this order. The other pages of the folder follow,
	// sorted by title, so a new page needs no entry.
	first []string
	// needs is the page whose table names the other pages in the order of a reader's needs. Pages that it leaves out follow.
	needs string
	// apart reports that the group is not in the menu. The page of the first such group lists the pages of all of them.
	apart bool
}

// start is the page of the repository's docs/index.md: the first page of the site, and the only one without a group.
const start = "docs/index.md"

// order is the menu, and then the groups that are not in it.
var order = []group{
	{title: "Start", folder: "docs/start", first: []string{"README.md"}},
	{title: "Tutorials", folder: "docs/tutorials", first: []string{"docs/tutorials/worker-runs-once.md", "docs/tutorials/nightly-job.md"}},
	{title: "How to", folder: "docs/how-to", needs: "docs/how-to/recipes.md"},
	{title: "Operate", folder: "docs/operate", first: []string{"docs/operate/install.md", "docs/operate/upgrade.md"}},
	{title: "Troubleshoot", folder: "docs/troubleshoot"},
	{title: "Reference", folder: "docs/reference", first: []string{"docs/reference/annotations.md"}},
	{title: "Security", folder: "docs/security"},
	{title: "Guarantees", folder: "docs/guarantees"},
	{title: "Project", folder: ".", first: []string{"CONTRIBUTING.md", "CHANGELOG.md"}},
	{title: "Evidence", folder: "docs/evidence", apart: true},
	{title: "Decisions", folder: "docs/decisions", apart: true},
}

// placed is a group with its pages in their order.
type placed struct {
	group

	pages []*page
}

// arrange returns each group that has pages.
func arrange(all []*page) (groups []placed) {
	of := map[string][]*page{}
	for _, p := range all {
		if p.source != start {
			folder := order[groupOf(p.source)].folder
			of[folder] = append(of[folder], p)
		}
	}
	for _, g := range order {
		if i := slices.IndexFunc(all, func(p *page) bool { return p.source == g.needs }); i >= 0 {
			g.first = append([]string{g.needs}, all[i].linked()...)
		}
		rank := func(p *page) int {
			if i := slices.Index(g.first, p.source); i >= 0 {
				return i
			}
			if isPageOf(p.source, g.folder) {
				return -1
			}
			return len(g.first)
		}
		slices.SortStableFunc(of[g.folder], func(a, b *page) int {
			return cmp.Or(rank(a)-rank(b), strings.Compare(strings.ToLower(a.title), strings.ToLower(b.title)))
		})
		if len(of[g.folder]) > 0 {
			groups = append(groups, placed{g, of[g.folder]})
		}
	}
	return groups
}

// linked returns the Markdown files that the page links to, in the page's order.
func (p *page) linked() (sources []string) {
	ast.WalkFunc(p.root, func(node ast.Node, entering bool) ast.WalkStatus {
		if link, ok := node.(*ast.Link); ok && entering {
			file, _, _ := strings.Cut(string(link.Destination), "#")
			sources = append(sources, path.Join(path.Dir(p.source), file))
		}
		return ast.GoToNext
	})
	return sources
}

// isPageOf reports whether the Markdown file is the page of a folder.
func isPageOf(source, folder string) bool {
	return source == folder+".md" || source == folder+"/README.md"
}

// groupOf returns the index of the group that names the Markdown file, or else of the nearest folder.
func groupOf(source string) int {
	if i := slices.IndexFunc(order, func(g group) bool { return slices.Contains(g.first, source) || isPageOf(source, g.folder) }); i >= 0 {
		return i
	}
	for dir := path.Dir(source); ; dir = path.Dir(dir) {
		if i := slices.IndexFunc(order, func(g group) bool { return g.folder == dir }); i >= 0 {
			return i
		}
	}
}

// apart returns the groups that are not in the menu.
func (s *site) apart() []placed {
	return slices.DeleteFunc(slices.Clone(s.groups), func(g placed) bool { return !g.apart })
}

// menu returns a list of the pages, with the group of the page p unfolded. The groups that are not in the menu have one
// entry together: the page that lists them.
func (s *site) menu(p *page) string {
	var b strings.Builder
	for _, g := range s.groups {
		if g.apart {
			continue
		}
		open := ""
		if slices.Contains(g.pages, p) {
			open = " open"
		}
		fmt.Fprintf(&b, "<details%s>\n<summary>%s</summary>\n%s</details>\n", open, html.EscapeString(g.title), list(p, g.pages))
	}
	if apart := s.apart(); len(apart) > 0 {
		titles := []string{apart[0].title}
		for _, g := range apart[1:] {
			titles = append(titles, strings.ToLower(g.title))
		}
		here := ""
		if slices.ContainsFunc(apart, func(g placed) bool { return slices.Contains(g.pages, p) }) {
			here = ` aria-current="true"`
		}
		fmt.Fprintf(&b, "<p class=\"apart\"><a href=\"%s\"%s>%s</a></p>\n", html.EscapeString(p.up()+apart[0].pages[0].path), here,
			html.EscapeString(strings.Join(titles, " and ")))
	}
	return b.String()
}

// list returns links from the page p to other pages.
func list(p *page, others []*page) string {
	var b strings.Builder
	b.WriteString("<ul>\n")
	for _, other := range others {
		here := ""
		if other == p {
			here = ` aria-current="page"`
		}
		fmt.Fprintf(&b, "<li><a href=\"%s\"%s>%s</a></li>\n", html.EscapeString(p.up()+other.path), here, html.EscapeString(other.title))
	}
	b.WriteString("</ul>\n")
	return b.String()
}

// lists returns the pages of the groups that are not in the menu, if p is the page that lists them.
func (s *site) lists(p *page) string {
	apart := s.apart()
	if len(apart) == 0 || apart[0].pages[0] != p {
		return ""
	}
	var b strings.Builder
	for i, g := range apart {
		if i == 0 {
			b.WriteString(list(p, g.pages[1:]))
		} else {
			fmt.Fprintf(&b, "<h2 id=\"%s\">%s</h2>\n%s", slug(g.title), html.EscapeString(g.title), list(p, g.pages))
		}
	}
	return b.String()
}

// neighbours returns links to the pages before and after the page p: in the menu, or in a group that is not in it.
func (s *site) neighbours(p *page) string {
	line := []*page{s.bySource[start]}
	for _, g := range s.groups {
		switch {
		case g.apart && slices.Contains(g.pages, p):
			line = g.pages
		case !g.apart:
			line = append(line, g.pages...)
		}
	}
	var b strings.Builder
	write := func(rel, word string, i int) {
		if i >= 0 && i < len(line) && line[i] != nil {
			fmt.Fprintf(&b, "<a rel=\"%s\" href=\"%s\"><span>%s</span> %s</a>\n", rel, html.EscapeString(p.up()+line[i].path), word, html.EscapeString(line[i].title))
		}
	}
	here := slices.Index(line, p)
	write("prev", "Previous", here-1)
	write("next", "Next", here+1)
	return b.String()
}
