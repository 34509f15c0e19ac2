// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package prometheus runs Debian's Prometheus in a pod, with the rules and the configuration of
// package monitoring.
//
// Debian builds Prometheus without discovery by Kubernetes. So [Server] writes the targets into
// files, with the labels that the discovery would give. The relabeling is that of
// monitoring/prometheus.yaml.
package prometheus
