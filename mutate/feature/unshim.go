// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// hasShim reports whether the command of a container starts with a shim.
func hasShim(c *corev1.Container) bool { return api.IsShim(c.Command) }

// unshim returns a command without its shim, and the arguments of that shim. After an earlier pass,
// only those arguments contain the hooks, and the stop signal that the pass looked up.
//
// The function also finds a shim behind a program that another injector has put in front.
// So a second pass never puts one shim behind another. The second shim would not be PID 1,
// and would wait for ever while the pod holds the slot.
func unshim(words []string) (own []string, before api.ExecArgs) {
	for i := range words {
		if !api.IsShim(words[i:]) {
			continue
		}
		n := slices.Index(words[i:], "--")
		if n < 0 {
			break // neither this shim nor a later shim has a "--"
		}
		return slices.Concat(words[:i], words[i+n+1:]), api.RecallExecArgs(words[i : i+n])
	}
	return words, api.ExecArgs{}
}
