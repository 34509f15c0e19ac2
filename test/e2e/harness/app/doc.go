// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package app deploys the test application (test/app) and follows its holder.
//
// An [App] describes a workload. The functions of the package create it in a
// space, wait until its pods are up, and read from the record which pod runs.
package app
