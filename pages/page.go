// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"html"
	"regexp"
	"strings"

	"github.com/gomarkdown/markdown"
	"github.com/gomarkdown/markdown/ast"
	"github.com/gomarkdown/markdown/parser"
)

// extensions are the extensions of Markdown that the repository uses. GitHub knows all of them
// except definition lists.
const extensions = parser.NoIntraEmphasis | parser.Tables | parser.FencedCode | parser.Autolink | parser.Strikethrough |
	parser.SpaceHeadings | parser.NoEmptyLineBeforeBlock | parser.BackslashLineBreak | parser.DefinitionLists | parser.OrderedListStart

// maxSize bounds a Markdown file, because the parser takes more than linear time in bad cases.
const maxSize = 1 << 20

// page is a parsed Markdown file.
type page struct {
	source string // the path of the Markdown file in the repository
	path   string // the path of the page in the site
	title  string
	text   string
	root   ast.Node
	// names has the anchor of each heading.
	names    map[*ast.Heading]string
	anchors  anchors
	sections []*section
}

// section is a heading with the text below, for the search and the table of contents.
type section struct {
	level         int
	title, anchor string
	text          strings.Builder
}

// parse reads a Markdown file, and finds the anchors of its headings.
func parse(source string, text []byte) *page {
	p := &page{
		source: source, path: target(source), text: string(text), anchors: anchors{}, names: map[*ast.Heading]string{},
		root: markdown.Parse(text, parser.NewWithExtensions(extensions)),
	}
	p.title = source
	for _, node := range p.root.GetChildren() {
		if h, ok := node.(*ast.Heading); ok && h.Level == 1 {
			p.title = textOf(h)
			break
		}
	}
	ast.WalkFunc(p.root, func(node ast.Node, entering bool) ast.WalkStatus {
		if h, ok := node.(*ast.Heading); ok && entering {
			title := textOf(h)
			p.names[h] = p.anchors.add(title)
			p.sections = append(p.sections, &section{level: h.Level, title: title, anchor: p.names[h]})
			return ast.SkipChildren
		}
		if leaf := node.AsLeaf(); leaf != nil && entering && len(p.sections) > 0 && !isHTML(node) {
			text := &p.sections[len(p.sections)-1].text
			text.WriteString(plain(node))
			if _, ok := node.(*ast.Text); !ok {
				text.WriteByte(' ')
			}
		}
		if _, inline := node.(*ast.Text); !entering && !inline && node.AsContainer() != nil && len(p.sections) > 0 && isBlock(node) {
			p.sections[len(p.sections)-1].text.WriteByte(' ')
		}
		return ast.GoToNext
	})
	return p
}

// isHTML reports whether the node is HTML from the Markdown file.
func isHTML(node ast.Node) bool {
	switch node.(type) {
	case *ast.HTMLBlock, *ast.HTMLSpan:
		return true
	}
	return false
}

// isBlock reports whether the text after the node begins a new line.
func isBlock(node ast.Node) bool {
	switch node.(type) {
	case *ast.Paragraph, *ast.ListItem, *ast.TableCell:
		return true
	}
	return false
}

// entity matches a text that the parser has found to be one character reference.
var entity = regexp.MustCompile(`^&#?[0-9A-Za-z]+;$`)

// plain returns the text of a leaf, and an empty text for any other node.
func plain(node ast.Node) string {
	leaf := node.AsLeaf()
	if leaf == nil {
		return ""
	}
	text := string(leaf.Literal)
	if _, ok := node.(*ast.Text); ok && entity.MatchString(text) {
		return html.UnescapeString(text)
	}
	return text
}

// textOf returns the text below a node, without its markup.
func textOf(node ast.Node) string {
	var b strings.Builder
	ast.WalkFunc(node, func(node ast.Node, entering bool) ast.WalkStatus {
		if entering && !isHTML(node) {
			b.WriteString(plain(node))
		}
		return ast.GoToNext
	})
	return strings.Join(strings.Fields(b.String()), " ")
}

// mistake is a part of a Markdown file that no page can have.
type mistake struct {
	source string
	line   int
	what   string
}

func (m mistake) Error() string { return fmt.Sprintf("%s:%d: %s", m.source, m.line, m.what) }

// reader follows the nodes of a Markdown file through the text of the file, because nodes have no
// positions.
type reader struct {
	text string
	at   int
}

// pass looks for a part behind the reader's position, moves behind the part, and returns the part's
// line. If the part does not occur there, the method returns the line of the position, and does not
// move.
func (r *reader) pass(part string) int {
	part, _, _ = strings.Cut(strings.TrimSpace(part), "\n")
	line := 1 + strings.Count(r.text[:r.at], "\n")
	if i := strings.Index(r.text[r.at:], part); part != "" && i >= 0 {
		line += strings.Count(r.text[r.at:r.at+i], "\n")
		r.at += i + len(part)
	}
	return line
}
