// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"path"
	"strings"
)

// target returns the path of the page that a Markdown file becomes. The path loses the folder
// docs. The repository's README.md becomes index.html, and a README.md in another folder
// becomes a page with that folder's name. An image keeps its name.
func target(source string) string {
	dir, file := path.Split(strings.TrimPrefix(source, "docs/"))
	switch {
	case source == "README.md":
		return "index.html"
	case file == "README.md":
		return strings.TrimSuffix(dir, "/") + ".html"
	}
	if name, document := strings.CutSuffix(file, ".md"); document {
		return dir + strings.ToLower(name) + ".html"
	}
	return dir + file
}
