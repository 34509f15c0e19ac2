// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pages renders the Markdown files of the repository as HTML pages, with one navigation and
// a search. [Build] makes the pages, and [Handler] serves the same bytes.
//
// Guarantee: the text of a Markdown file becomes only listed elements and attributes
// (hostile_test.go has the list). HTML in a Markdown file is an error, except for comments, which
// the pages leave out. A link has the scheme https, http or mailto, or leads to a page, or to a
// file of the repository. Each link to a page leads to a page that exists, and to a heading that
// exists. An error names the file and the line. Equal Markdown files make equal bytes.
//
// A browser that opens a page sends no request to another host. The policy in each page
// ([Policy]) forbids all requests but those for the page's own style, script and images.
//
// Not guaranteed: that links to other hosts work. Each heading has the anchor that GitHub gives to
// the heading, unless the heading has emoji or HTML. The parser knows no source positions, so the
// package finds the line of an error by a search for the offending text. The package has no clock.
//
// Rejected: a static site generator, which needs a theme and further programs; rendered pages in
// the repository.
package pages
