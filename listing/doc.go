// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package listing lists objects of the API server page by page. A user can create many large
// objects. In one answer, these objects could take more memory than the program has.
package listing
