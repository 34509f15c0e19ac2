// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package addons installs the cluster's programs that run in pods: DNS and
// cert-manager.
package addons
