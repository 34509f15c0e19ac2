// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"html"
	"io"
	"slices"

	"github.com/gomarkdown/markdown/ast"
)

// prose is the number of characters from which on a cell is prose. On a narrow screen a table with prose shows each
// row as a block, one cell below the other. A table without prose, such as one of numbers, scrolls within itself.
const prose = 40

func (s *site) table(w io.Writer, node *ast.Table, entering bool) {
	switch {
	case !entering:
		fmt.Fprint(w, "</table></div>\n")
	case hasProse(node):
		fmt.Fprint(w, "\n<div class=\"table stack\" tabindex=\"0\"><table>\n")
	default:
		fmt.Fprint(w, "\n<div class=\"table\" tabindex=\"0\"><table>\n")
	}
}

func hasProse(table *ast.Table) (found bool) {
	ast.WalkFunc(table, func(node ast.Node, entering bool) ast.WalkStatus {
		if cell, ok := node.(*ast.TableCell); ok && entering && len([]rune(textOf(cell))) >= prose {
			found = true
		}
		return ast.GoToNext
	})
	return found
}

// cell writes a cell. A header without text is an ordinary cell, because assistive software would
// announce an empty header.
func (s *site) cell(w io.Writer, node *ast.TableCell, entering bool) {
	name, attributes := "td", ""
	if node.IsHeader && textOf(node) != "" {
		name = "th"
		attributes = ` scope="col"`
	}
	if !entering {
		fmt.Fprintf(w, "</%s>", name)
		return
	}
	if align := node.Align.String(); align != "" {
		attributes += fmt.Sprintf(" class=\"%s\"", align)
	}
	if label := labelOf(node); label != "" {
		attributes += fmt.Sprintf(" data-label=\"%s\"", html.EscapeString(label))
	}
	fmt.Fprintf(w, "<%s%s>", name, attributes)
}

// labelOf returns the text of the header above a cell, which style.css shows in front of the cell where rows are
// blocks. The first cell of a row has no label: it is the title of its block.
func labelOf(cell *ast.TableCell) string {
	row := cell.GetParent()
	if _, inBody := row.GetParent().(*ast.TableBody); !inBody {
		return ""
	}
	column := slices.Index(row.GetChildren(), ast.Node(cell))
	for _, part := range row.GetParent().GetParent().GetChildren() {
		header, ok := part.(*ast.TableHeader)
		if !ok || column < 1 || len(header.GetChildren()) == 0 {
			continue
		}
		if titles := header.GetChildren()[0].GetChildren(); column < len(titles) {
			return textOf(titles[column])
		}
	}
	return ""
}
