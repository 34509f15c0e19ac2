// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package cgroup makes, freezes and removes the cgroups of nodes, on hosts with
// version 1 or version 2 of the hierarchies.
package cgroup
