// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package tutorials follows each page of docs/tutorials, command by command, on a real cluster. The
// outputs must be those of the page. The comment of package test/e2e/harness/tutorial explains how
// a page is read.
package tutorials
