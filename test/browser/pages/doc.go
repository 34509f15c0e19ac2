// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pages tests the pages of the documentation in a browser. The browser opens the pages from
// a server, and also as files on the disk.
package pages
