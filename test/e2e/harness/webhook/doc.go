// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook knows the installed webhook: its names, replicas and certificate,
// and its answers to pods that a test proposes by dry run.
package webhook
