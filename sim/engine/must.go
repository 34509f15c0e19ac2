// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package engine

// Must panics at an error that only a mistake in the simulation can cause.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}
