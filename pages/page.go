// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"errors"
	"fmt"
	"html"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/gomarkdown/markdown"
	"github.com/gomarkdown/markdown/ast"
	"github.com/gomarkdown/markdown/parser"

	"github.com/metaparticle-io/metaparticle/api"
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

// comment matches HTML that consists of comments alone.
var comment = regexp.MustCompile(`(?s)^\s*(?:<!--.*?-->\s*)+$`)

// check returns the mistakes of a page. Before the call, [site.read] must have read all pages.
func (p *page) check(s *site) (all []error) {
	r := &reader{text: p.text}
	ast.WalkFunc(p.root, func(node ast.Node, entering bool) ast.WalkStatus {
		if !entering {
			return ast.GoToNext
		}
		what, part := "", ""
		switch node := node.(type) {
		case *ast.Text, *ast.Code, *ast.CodeBlock:
			part = string(node.AsLeaf().Literal)
		case *ast.HTMLBlock, *ast.HTMLSpan:
			part = string(node.AsLeaf().Literal)
			if !comment.MatchString(part) {
				what = fmt.Sprintf("HTML is refused: %q", firstLine(part))
			}
		case *ast.Link:
			part = string(node.Destination)
			if _, err := s.resolve(p, part); err != nil {
				what = fmt.Sprintf("the link to %q %v", part, err)
			}
		case *ast.Image:
			part = string(node.Destination)
			if _, err := s.resolve(p, part); err != nil {
				what = fmt.Sprintf("the image %q %v", part, err)
			} else if textOf(node) == "" {
				what = fmt.Sprintf("the image %q has no text that describes it", part)
			}
		default:
			if !known(node) {
				what = fmt.Sprintf("pages have no %s", strings.TrimPrefix(fmt.Sprintf("%T", node), "*ast."))
			}
		}
		line := r.pass(part)
		if what != "" {
			all = append(all, mistake{p.source, line, what})
		}
		return ast.GoToNext
	})
	return all
}

func firstLine(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	return text
}

// known reports whether a page may have nodes of the argument's type. Texts, code, links, images
// and HTML are not listed here, because [page.check] inspects them.
func known(node ast.Node) bool {
	switch node.(type) {
	case *ast.Document, *ast.Heading, *ast.Paragraph, *ast.List, *ast.ListItem, *ast.BlockQuote, *ast.HorizontalRule,
		*ast.Table, *ast.TableHeader, *ast.TableBody, *ast.TableRow, *ast.TableCell,
		*ast.Emph, *ast.Strong, *ast.Del, *ast.Softbreak, *ast.Hardbreak:
		return true
	}
	return false
}

// target returns the path of the page that a Markdown file becomes. The path loses the folder
// docs. The README.md of a folder becomes a page with that folder's name. An image keeps its name.
func target(source string) string {
	dir, file := path.Split(strings.TrimPrefix(source, "docs/"))
	if file == "README.md" && dir != "" {
		return strings.TrimSuffix(dir, "/") + ".html"
	}
	if name, document := strings.CutSuffix(file, ".md"); document {
		return dir + strings.ToLower(name) + ".html"
	}
	return dir + file
}

// anchors is the set of the anchors on one page.
type anchors map[string]bool

// add returns the anchor that GitHub gives to a heading. If headings have the same text, the
// anchor of each further heading ends with a number.
func (a anchors) add(heading string) string {
	plain := slug(heading)
	anchor := plain
	for n := 1; a[anchor]; n++ {
		anchor = plain + "-" + strconv.Itoa(n)
	}
	a[anchor] = true
	return anchor
}

// slug returns the text in lower case, without punctuation, and with hyphens for spaces.
func slug(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}

// link is the destination of a link or an image.
type link struct {
	href string
	// shown reports that the link leads to an image which the site has.
	shown bool
}

// resolve returns where a link of a page leads. The text of the error completes a sentence that
// begins with the link. A link to a folder of the menu leads to the folder's first page.
func (s *site) resolve(from *page, destination string) (link, error) {
	to, err := url.Parse(destination)
	switch {
	case err != nil || destination == "" || strings.ContainsAny(destination, "\\\x00\n\r\t "):
		return link{}, errors.New("is no address")
	case slices.Contains([]string{"https", "http"}, to.Scheme) && to.Host != "" && to.User == nil, to.Scheme == "mailto" && to.Opaque != "":
		return link{href: to.String()}, nil
	case to.Scheme != "" || to.Host != "" || to.RawQuery != "" || strings.HasPrefix(to.Path, "/"):
		return link{}, errors.New("is neither of https, http or mailto, nor of this repository")
	}
	name := from.source
	if to.Path != "" {
		name = path.Join(path.Dir(from.source), to.Path)
	}
	anchor := ""
	if to.Fragment != "" {
		anchor = "#" + to.EscapedFragment()
	}
	if i := slices.IndexFunc(s.groups, func(g placed) bool { return g.folder == strings.TrimSuffix(name, "/") }); i >= 0 && name != "." {
		name = s.groups[i].pages[0].source
	}
	if page := s.bySource[name]; page != nil {
		if to.Fragment != "" && !page.anchors[to.Fragment] {
			return link{}, fmt.Errorf("names no heading of %s", name)
		}
		if page == from {
			return link{href: anchor}, nil
		}
		return link{href: from.up() + page.path + anchor}, nil
	}
	if name == ".." || strings.HasPrefix(name, "../") || !s.exists(name) {
		return link{}, errors.New("names no file of this repository")
	}
	if s.pictures[name] != nil {
		return link{href: from.up() + target(name), shown: true}, nil
	}
	return link{href: api.Repository + (&url.URL{Path: name}).EscapedPath() + anchor}, nil
}

// up returns the relative path from the folder of the page to the top of the site.
func (p *page) up() string { return strings.Repeat("../", strings.Count(p.path, "/")) }
