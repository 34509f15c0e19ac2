// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package metaparticle embeds the repository's Markdown pages, under their paths in the repository.
// This package is in the top folder, because a Go file in docs/ cannot embed README.md. Package
// pages renders the embedded pages as HTML.
package metaparticle

import "embed"

// Documents has the embedded Markdown pages and their pictures. A new folder of them needs a pattern
// in the directive go:embed.
//
//go:embed README.md CHANGELOG.md CONTRIBUTING.md examples/README.md docs/*.md docs/*.png docs/*.svg docs/*/*.md
var Documents embed.FS
