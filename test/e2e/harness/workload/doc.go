// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package workload rolls out versions of the test application under each kind of
// workload, with each strategy.
//
// A [Kind] also has the promises of docs/operate/rollouts.md for this kind.
package workload
