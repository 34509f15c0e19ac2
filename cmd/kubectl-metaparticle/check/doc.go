// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package check judges an installation, and a cluster before an installation. Each check reads
// objects or sends a dry run, and changes nothing. The outcome of a check is a [Finding], which
// says what to do. If a person may not read the objects of a check, the [Result] is "unknown".
//
// The checks compare times with the API server's own clock, and never with the clock of the
// person's computer.
package check
