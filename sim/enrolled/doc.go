// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package enrolled plays the seeds of package sim with the real enroll.Reconciler
// instead of the model of enroll. The package has no code but tests. The package is separate
// because enroll links controller-runtime, which takes minutes to compile.
//
// The planted bugs of enroll are in planted/. All other planted bugs are in package
// sim.
package enrolled
