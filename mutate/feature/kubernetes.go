// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/version"
)

// RestartsAll is the first minor version of Kubernetes 1 with restart rules that restart all
// containers of a pod (KEP-5532, on by default). From this version on, the scheduler also keeps
// pods with such a restart rule away from older nodes.
const RestartsAll = 36

// MinorVersion returns the cluster's minor version of Kubernetes 1.
func MinorVersion(info *version.Info) (int, error) {
	// In a vendor's build the minor version may be "36+".
	n, err := strconv.Atoi(strings.TrimRight(info.Minor, "+"))
	if err != nil || info.Major != "1" {
		return 0, fmt.Errorf("version %q.%q is not understood", info.Major, info.Minor)
	}
	return n, nil
}
