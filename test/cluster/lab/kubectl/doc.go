// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package kubectl runs the cluster's own kubectl with the rights of an administrator.
package kubectl
