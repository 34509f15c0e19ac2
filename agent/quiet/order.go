// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package quiet

// sent does nothing without the race detector.
func sent() {}

// received does nothing without the race detector.
func received() {}
