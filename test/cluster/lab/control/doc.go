// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package control starts the control plane: its node, certificates, kubeconfigs and
// components.
package control
