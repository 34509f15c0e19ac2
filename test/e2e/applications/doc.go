// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package applications protects real software: servers, databases and scripts, as
// people deploy them, killed in every way and compared with their ungated twins.
package applications
