// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package kubectl runs the real kubectl, as a user does, in the namespace of a test.
package kubectl
