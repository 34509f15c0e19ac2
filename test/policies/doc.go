// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package policies judges requests by the policies of manifests/policies. The API server's own
// packages compile and evaluate the expressions of the policies, and package mutate makes the gated
// pods. So these tests need no cluster.
//
// The tests have no authorizer of RBAC, no bindings of policies, and no other admission. The folders
// rights and injection of test/e2e send one admitted and one refused request of each policy to a real
// API server.
package policies
