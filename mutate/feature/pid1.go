// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// firsts are programs that refuse to run except as PID 1, in the folders of [systemFolders]. The
// program init is the one of s6-overlay, systemd, sysvinit, busybox or sinit. Programs such as tini,
// dumb-init, my_init, runsvdir and s6-svscan run with any PID.
var (
	firsts        = []string{"init", "linuxrc", "systemd", "runit", "runit-init", "openrc-init"}
	systemFolders = []string{"/", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/lib/systemd", "/usr/lib/systemd"}
)

// warnOfPID1 warns of what does not work if the shim is PID 1.
func warnOfPID1(p *Pod) reason.Refusals { return append(warnOfInit(p), warnOfNamed(p)...) }

// warnOfNamed warns of hooks and exec probes that mean the application, and reach the shim.
func warnOfNamed(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	for _, at := range p.places() {
		c := p.container(at)
		judge := func(field string, exec *corev1.ExecAction) {
			if exec == nil {
				return
			}
			if named := namesPID1(exec.Command); named != "" {
				warnings.Add(reason.NamesPID1, "container %q has a %s with %s", c.Name, field, named)
			}
		}
		for _, h := range hooksOf(c) {
			if h.handler != nil {
				judge(h.field+" hook", h.handler.Exec)
			}
		}
		for _, kind := range probeKinds {
			if probe := kind.in(c); probe != nil {
				judge(kind.field, probe.Exec)
			}
		}
	}
	return warnings
}

// These are the programs that take the PID of the process that they look into: as a word of its own, or as
// the value of -p. A signal to PID 1 is missing, because the shim passes it on to the application.
var (
	takeWord   = []string{"jstack", "jmap", "jinfo", "jattach", "gcore", "pstack", "pmap", "pwdx", "asprof", "profiler.sh"}
	takeFirst  = []string{"jcmd", "jstat"}
	takeOption = []string{
		"py-spy", "rbspy", "phpspy", "gdb", "lldb", "strace", "ltrace", "perf", "ps", "top", "pidstat", "lsof", "renice", "ionice", "taskset",
		"chrt", "prlimit", "dotnet-dump", "dotnet-gcdump", "dotnet-trace", "dotnet-counters", "dotnet-stack",
	}
)

// ofProcess matches a file about PID 1 itself. What is missing here, such as fd, root or environ, is the
// same for the shim and the application.
var ofProcess = regexp.MustCompile(`(?:^|[^\w/.-])/proc/1/(?:auxv|cmdline|comm|exe|io|maps|oom_\w+|sched\w*|smaps\w*|stack|statm?|status|syscall|task|wchan)\b`)

// namesPID1 returns the part of a command by which the command reaches the shim instead of the application;
// empty for none. The command may be a script in an argument of a shell.
func namesPID1(command []string) string {
	if file := ofProcess.FindString(strings.Join(command, " ")); file != "" {
		return file[strings.Index(file, "/proc"):]
	}
	var words []string
	for _, word := range command {
		if !strings.ContainsAny(word, " \t\n;") {
			words = append(words, word)
			continue
		}
		for _, part := range strings.FieldsFunc(word, func(r rune) bool { return strings.ContainsRune("\n;|&()`", r) }) {
			if named := takesPID1(strings.FieldsFunc(part, func(r rune) bool { return strings.ContainsRune(" \t\"'", r) })); named != "" {
				return named
			}
		}
	}
	return takesPID1(words)
}

// takesPID1 returns the part of a simple command that means PID 1; empty for none. Only the first known
// program of the command counts: each further one would cost a search of its own.
func takesPID1(words []string) string {
	if hasValue(words, "--pid", "--process-id") {
		return "--pid 1"
	}
	known := func(word string) bool {
		name := path.Base(word)
		return name == "kill" || slices.Contains(takeWord, name) || slices.Contains(takeFirst, name) || slices.Contains(takeOption, name)
	}
	i := slices.IndexFunc(words, known)
	if i < 0 {
		return ""
	}
	program, rest := path.Base(words[i]), words[i+1:]
	takes := false
	switch {
	case program == "kill":
		takes = slices.Contains(rest, "-0") && slices.Contains(rest, "1")
	case slices.Contains(takeWord, program):
		takes = slices.Contains(rest, "1")
	case slices.Contains(takeFirst, program):
		first := slices.IndexFunc(rest, func(w string) bool { return !strings.HasPrefix(w, "-") })
		takes = first >= 0 && rest[first] == "1"
	default:
		takes = hasValue(rest, "-p") || slices.Contains(rest, "-p1")
	}
	if !takes {
		return ""
	}
	return program + " and PID 1"
}

// hasValue reports whether one of the options has the value 1.
func hasValue(words []string, options ...string) bool {
	return slices.ContainsFunc(options, func(option string) bool {
		at := slices.Index(words, option)
		return at >= 0 && at+1 < len(words) && words[at+1] == "1" || slices.Contains(words, option+"=1")
	})
}

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
