// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package applications protects real software. Its tests deploy servers, databases and
// scripts, kill them in every way, and compare them with their ungated twins.
package applications
