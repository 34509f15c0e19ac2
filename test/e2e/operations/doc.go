// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package operations protects an installation of Metaparticle. The tests stop the webhook, renew a
// certificate, take an election over, upgrade, and uninstall.
package operations
