// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package policies judges requests by the policies of manifests/policies. The API server's own
// packages compile and evaluate the expressions of the policies. So these tests need no cluster.
//
// The tests have no authorizer of RBAC, and no other admission. The tests of test/e2e/rights send
// such requests to real API servers.
package policies
