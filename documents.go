// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package metaparticle embeds the documents of the repository, under their paths in the repository.
// This package is in the top folder, because a file in docs/ cannot embed README.md. The documents
// link to each other across folders. Package pages renders the documents.
package metaparticle

import "embed"

// Documents has the files of all documents. A new folder of documents needs a pattern here.
//
//go:embed README.md CHANGELOG.md CONTRIBUTING.md examples/README.md docs/*.md docs/decisions/*.md docs/tutorials/*.md
var Documents embed.FS
