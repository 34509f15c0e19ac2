// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package status reads the kubelet's reports of a pod: pod conditions, restart counts and
// ends of containers.
package status
