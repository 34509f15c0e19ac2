// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package wait waits: for a condition without events, for jobs at the same time,
// for the lock of a file.
package wait
