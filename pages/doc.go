// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pages renders the documents of the repository as HTML pages, with one navigation and a
// search. [Build] makes the files, and [Handler] serves the same bytes.
//
// Guarantee: the text of a document becomes only elements and attributes that this package lists
// (hostile_test.go has the list). HTML in a document is an error, except for comments, which
// vanish. A link has the scheme https, http or mailto, or leads to a page, or to a file of the
// repository. Each link to a page leads to a page that exists, and to a heading that exists. An
// error names the file and the line. Equal documents make equal bytes.
//
// A browser that opens a page sends no request to another host. The policy in each page
// ([Policy]) forbids all requests but those for the page's own style, script and images.
//
// Not guaranteed: nobody checks links to other hosts. Anchors are those that GitHub makes of the
// headings, as far as the documents use them: emoji and HTML in headings are unknown. The parser
// knows no source positions, so the line of an error is found by a search for the offending text.
// The package has no clock.
package pages
