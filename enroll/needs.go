// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"cmp"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// needs has, for each service account, the names of the objects that its pods need. The value of
// each name is the first pod or workload that needs the object.
type needs map[string]map[string]client.Object

func (n needs) add(by client.Object, account string, names []string) {
	account = cmp.Or(account, "default")
	for _, name := range names {
		if n[account] == nil {
			n[account] = map[string]client.Object{}
		}
		if n[account][name] == nil {
			n[account][name] = by
		}
	}
}
