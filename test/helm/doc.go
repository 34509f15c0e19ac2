// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package helm compares the Helm chart with the kustomization. Helm's packages render the chart
// as the command helm does. The module also builds the command helm, for test/e2e.
//
// No test of this package has a cluster: test/e2e/operations installs the chart.
package helm
