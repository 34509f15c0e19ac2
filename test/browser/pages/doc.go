// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pages tests the pages of the documentation in a browser, served and from the disk.
package pages
