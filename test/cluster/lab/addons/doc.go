// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package addons installs what runs in pods: cluster DNS and cert-manager.
package addons
