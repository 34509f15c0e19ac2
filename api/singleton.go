// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strings"
)

// SingletonAnnotation is the key of the annotation for singletons.
const SingletonAnnotation = Prefix + "singleton"

const singletonPrefix = "singleton"

// Singleton claims one slot, for which the pods of a workload compete.
var Singleton = &Kind{
	Key: SingletonAnnotation, Ask: SingletonAnnotation + `: "true"`, Scope: ScopeWorkload, Forwards: true, TakesTurns: true, Awaited: true,
	parse:  parseSingleton,
	slots:  func(c Claim, of Workload) []string { return []string{SingletonLease(of, c.Name)} },
	isSlot: isSingletonSlot,
}

// SingletonLease returns the name of the Lease of a workload's singleton. The argument "name"
// is empty for a singleton without a name.
//
// Two singletons with the same Lease have the same name, and their workloads differ at most in
// the case of the workload's kind. The parts of the Lease's name prove this:
//   - The first dot ends "singleton" or "singleton-<name>": a name is a DNS label. The
//     singleton's name can be read back from that part, which also distinguishes a
//     singleton from a lock.
//   - The second dot ends the workload's kind and group. The workload's name follows, which
//     may have dots of its own.
//   - Between these two dots, each dash of the kind and of the group is doubled. So the first
//     single dash separates kind and group, and all further single dashes are dots of the
//     group.
//   - Kind, group and the parts of a group begin and end with a letter or digit. So
//     readKind can read a sequence of dashes in only one way.
//   - Kinds of Kubernetes' own groups have no group appended; their names all differ.
//   - A name that is too long ends in the hash of the whole, by [shortName].
//
// The name has the kind in lower case. So two kinds of one group that differ in case alone
// share a slot. Then a pod may wait without need, but two holders never run at once.
func SingletonLease(group Workload, name string) string {
	var b strings.Builder
	b.WriteString(singletonPrefix)
	if name != "" {
		b.WriteString("-" + name)
	}
	b.WriteString("." + group.kindPart() + "." + group.Name)
	return shortName(b.String())
}

func parseSingleton(value string) ([]Claim, string) {
	switch {
	case value == "true":
		return []Claim{{Size: 1}}, ""
	case value == "false":
		return nil, ""
	case len(value) <= maxLabel && ambiguous(value):
		return nil, `write "true" or "false"`
	case isSized(value), strings.Trim(value, "0123456789") == "" && len(value) <= maxLabel && value != "":
		return nil, fmt.Sprintf(`a singleton has one holder, and takes no number: write "true", or use %s for several holders, as in pool=3`, SemaphoreAnnotation)
	case !isSingletonName(value):
		return nil, `write "true", "false" or a name: at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends`
	}
	return []Claim{{Name: value, Size: 1}}, ""
}

// ambiguous reports whether a person may mean the value as a boolean. Without this check,
// the value "no" would claim a singleton with the name "no".
func ambiguous(value string) bool {
	return slices.Contains([]string{"0", "1", "f", "false", "n", "no", "off", "on", "t", "true", "y", "yes"}, strings.ToLower(value))
}

// isSingletonSlot reports whether the text can be the name of a singleton's Lease. In a shortened
// name, isSingletonSlot can judge only the part before the hash.
func isSingletonSlot(lease string) bool {
	if !strings.HasPrefix(lease, singletonPrefix) {
		return false // the rest of the name need not be read
	}
	return isUnshortened(lease, isSingletonLease)
}

// isSingletonLease reports whether [SingletonLease] can return the name without
// shortening it.
func isSingletonLease(lease string) bool {
	first, rest, _ := strings.Cut(lease, ".")
	if name, named := strings.CutPrefix(first, singletonPrefix+"-"); named {
		first = singletonPrefix
		if !isSingletonName(name) {
			return false
		}
	}
	return first == singletonPrefix && isWorkload(rest)
}

// isSingletonName reports whether a singleton can have the name.
func isSingletonName(name string) bool {
	return len(name) <= maxLabel && isLabel(name) && !ambiguous(name)
}
