// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// hasShim reports whether a container starts a shim. Another injector may have put its own program in
// front of the shim, and so made the shim an argument.
func hasShim(c *corev1.Container) bool {
	return shimAt(slices.Concat(c.Command, c.Args)) >= 0
}

// wasGated reports whether an earlier pass has gated a main container. If the shim is only an argument,
// the mount of the shared volume shows that the pass has put the shim there.
func wasGated(c *corev1.Container) bool {
	return api.IsShim(c.Command) || hasShim(c) && mounts(c, api.Volume)
}

// shimAt returns the index of the first shim among the words of a command, or -1.
func shimAt(words []string) int {
	for i := range words {
		if api.IsShim(words[i:]) {
			return i
		}
	}
	return -1
}

// unshim returns a command without its shim, and the arguments of that shim. After an earlier pass,
// only those arguments contain the hooks, and the stop signal that the pass looked up.
//
// The function also finds a shim behind a program that another injector has put in front.
// So a second pass never puts one shim behind another. The second shim would not be PID 1,
// and would wait for ever while the pod holds the slot.
func unshim(words []string) (own []string, before api.ExecArgs) {
	own, shim := split(words)
	if len(shim) == 0 {
		return own, api.ExecArgs{}
	}
	return own, api.RecallExecArgs(shim)
}

// split returns the words of a command without its shim, and the words of the shim, which may
// contain large JSON.
func split(words []string) (own, shim []string) {
	i := shimAt(words)
	if i < 0 {
		return words, nil
	}
	n := slices.Index(words[i:], "--")
	if n < 0 {
		return words, nil // neither this shim nor a later shim has a "--"
	}
	return slices.Concat(words[:i], words[i+n+1:]), words[i : i+n]
}
