// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook gives tests access to the installed webhook: its names, its replicas and its
// certificate. A test proposes pods to the webhook by dry run.
package webhook
