// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package handovers tests which holders hand over by themselves: those whose application hangs, and
// those to which another pod is preferred. They need no webhook for that. The cleanup of each space requires that no two
// applications ran at once, and that each fencing token is greater than the one before.
package handovers
