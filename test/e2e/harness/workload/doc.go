// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package workload rolls out versions of the test application under each kind of
// workload, with each strategy.
//
// A [Kind] also says what docs/rollouts.md promises for it.
package workload
