// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// variables are the Variables that the pods of a namespace use, by service account. With each
// Variable is the first pod or workload that names it.
type variables map[string]map[string]client.Object

func (v variables) add(by client.Object, account string, names []string) {
	account = cmp.Or(account, "default")
	for _, name := range names {
		if v[account] == nil {
			v[account] = map[string]client.Object{}
		}
		if v[account][name] == nil {
			v[account][name] = by
		}
	}
}

// addPod adds the Variables of a gated pod, from the marks that the webhook wrote. These marks
// count as those of slots do.
func (v variables) addPod(pod *corev1.Pod, optedIn bool) {
	a := asks(pod)
	if a.ended || !optedIn && !a.gate {
		return
	}
	var names []string
	for mark := range strings.SplitSeq(a.slots, ",") {
		if name, ok := api.VariableOf(mark); ok {
			names = append(names, name)
		}
	}
	v.add(pod, a.account, names)
}
