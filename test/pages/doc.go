// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pages tests the pages of the documentation in Debian's Chromium: from a server, and from
// the disk. The checker axe-core of npm looks for mistakes of accessibility.
package pages
