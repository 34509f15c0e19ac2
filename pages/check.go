// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/gomarkdown/markdown/ast"
)

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
