// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"path"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// firsts are programs that refuse to run except as PID 1, in the folders of [systemFolders]. The
// program init is the one of s6-overlay, systemd, sysvinit, busybox or sinit. Programs such as tini,
// dumb-init, my_init, runsvdir and s6-svscan run with any PID.
var (
	firsts        = []string{"init", "linuxrc", "systemd", "runit", "runit-init", "openrc-init"}
	systemFolders = []string{"/", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/lib/systemd", "/usr/lib/systemd"}
)

// warnOfInit warns of a shim in front of an init that refuses to run, because the shim is PID 1. The
// command of an image is known only in a pod. So for a template the function judges only commands in
// the template.
func warnOfInit(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	for i, at := range p.places() {
		c := p.container(at)
		commands := [][]string{}
		if i < len(p.shims) {
			for _, its := range p.shims[i].platforms {
				commands = append(commands, its.Command)
			}
			commands = append(commands, p.shims[i].args)
		} else if len(c.Command) > 0 {
			own, _ := split(slices.Concat(c.Command, c.Args))
			commands = append(commands, own)
		}
		for _, words := range commands {
			if first := firstOf(words); first != "" {
				warnings.Add(reason.NeedsPID1, "container %q runs %s", c.Name, first)
				break
			}
		}
	}
	return warnings
}

// firstOf returns the program of a command that refuses to run except as PID 1; empty without one.
// The program may be an argument of a wrapper or of a shell, which executes it at last.
func firstOf(words []string) string {
	if len(words) > 1 && path.Base(words[0]) == "busybox" && words[1] == "init" {
		return "busybox init"
	}
	for i, word := range words {
		if i == 0 && slices.Contains(firsts, word) {
			return word
		}
		for _, program := range strings.FieldsFunc(word, func(r rune) bool { return strings.ContainsRune(" \t\n;&|()\"'", r) }) {
			if folder, name := path.Split(path.Clean(program)); slices.Contains(firsts, name) && slices.Contains(systemFolders, path.Clean(folder)) {
				return program
			}
		}
	}
	return ""
}
