// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package status answers questions about what the kubelet reports of a pod:
// conditions, restart counts and ends of containers.
package status
