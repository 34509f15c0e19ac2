// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package metaparticle has the documents of the repository, under the paths that they have there.
// The file is at the top, because a file in docs/ cannot embed README.md, and the documents link
// to each other across folders. Package pages renders the documents.
package metaparticle

import "embed"

// Documents are the documents. A folder with further documents needs a pattern here.
//
//go:embed README.md CHANGELOG.md CONTRIBUTING.md examples/README.md docs/*.md docs/decisions/*.md docs/tutorials/*.md
var Documents embed.FS
