// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

// AuditLog is the API server's record of the requests that pods made, one JSON
// object (audit.k8s.io/v1 Event) a line.
func (c *Cluster) AuditLog() string { return c.path("log", "audit.log") }

// auditPolicy is what the API server records there.
func (c *Cluster) auditPolicy() string { return c.path("conf", "audit.yaml") }
