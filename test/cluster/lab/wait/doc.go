// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package wait waits for states that cause no event, for parallel jobs, and for the flock of a
// file.
package wait
