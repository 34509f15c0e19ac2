// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package app deploys the test application (test/app) and follows its holder.
//
// An [App] describes a workload. The functions of the package create the workload in a
// space and wait until its pods run. The record tells which pod runs the application.
package app
