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

// unshim returns a command without its shim, and the arguments of that shim. After an earlier
// pass only the arguments have the hooks, and they save a second look-up of the stop signal.
//
// The shim is the first program, or stands behind one that another injector has put before
// it. A shim behind a shim is no PID 1 and would wait for ever, while the pod holds the slot.
func unshim(words []string) (own []string, before api.ExecArgs) {
	for i := range words {
		if !api.IsShim(words[i:]) {
			continue
		}
		n := slices.Index(words[i:], "--")
		if n < 0 {
			break // no shim behind this one has an end either
		}
		return slices.Concat(words[:i], words[i+n+1:]), api.RecallExecArgs(words[i : i+n])
	}
	return words, api.ExecArgs{}
}
