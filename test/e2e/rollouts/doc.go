// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollouts tests the rollouts of good and broken versions of an application. The
// rollout of a broken version must stall, and the Service must still answer.
package rollouts
