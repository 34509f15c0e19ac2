// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package metaparticle embeds the repository's Markdown pages, under their paths in the repository.
// This package is in the top folder, because a Go file in docs/ cannot embed README.md. Package
// pages renders the embedded pages as HTML.
package metaparticle

import "embed"

// Documents has the embedded Markdown pages. A new folder of such pages needs a pattern
// in the directive go:embed.
//
//go:embed README.md CHANGELOG.md CONTRIBUTING.md examples/README.md docs/*.md docs/*/*.md
var Documents embed.FS
