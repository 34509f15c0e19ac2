// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package operations protects the installed product: a lost webhook, a renewed
// certificate, a lost election, and the uninstallation.
package operations
