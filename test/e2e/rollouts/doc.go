// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollouts protects the old version of an application from a broken new one. A
// rollout of a broken version stalls, and the Service still answers.
package rollouts
