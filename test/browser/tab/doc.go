// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package tab opens pages in Debian's Chromium. At the end of each test, the package demands that
// the page has sent no request to another host. The package also demands that the browser has
// reported no error. With the checker axe-core, the method [Tab.Violations] finds mistakes of
// accessibility.
package tab
