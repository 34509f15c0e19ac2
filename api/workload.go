// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"strings"
)

// Workload is the top-most controller of a pod. A pod without a controller is its own workload. A
// singleton has one holder within a workload.
type Workload struct {
	// Group is the API group, without its version; empty for the core group.
	Group string
	Kind  string
	Name  string
}

// String returns Kind/name, or Kind.group/name for a kind outside of Kubernetes' own groups.
func (w Workload) String() string {
	if w.builtin() {
		return w.Kind + "/" + w.Name
	}
	return w.Kind + "." + w.Group + "/" + w.Name
}

// ParseWorkload reads the text of [Workload.String]. The text does not name the group of one of
// Kubernetes' own kinds, so of these ParseWorkload knows only the groups of workloads.
func ParseWorkload(text string) (Workload, bool) {
	kind, name, _ := strings.Cut(text, "/")
	kind, group, _ := strings.Cut(kind, ".")
	switch kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet":
		group = cmp.Or(group, "apps")
	case "CronJob", "Job":
		group = cmp.Or(group, "batch")
	}
	w := Workload{Group: group, Kind: kind, Name: name}
	return w, w.Valid()
}

func (w Workload) builtin() bool {
	return w.Group == "" || w.Group == "apps" || w.Group == "batch"
}

// Valid reports whether an object of the API server can have the workload's group, kind and
// name. Callers need this check because a pod's owner references may contain any text. The text
// would become a part of a Lease's name, of an argument and of a comma-separated list.
func (w Workload) Valid() bool {
	group := w.Group == "" || (len(w.Group) <= maxName && isSubdomain(w.Group))
	return group && isKind(w.Kind) && len(w.Name) <= maxName && isSubdomain(w.Name)
}

// kindPart returns the part of a Lease's name that has the kind and the group.
func (w Workload) kindPart() string {
	part := strings.ReplaceAll(strings.ToLower(w.Kind), "-", "--")
	if w.builtin() {
		return part
	}
	return part + "-" + strings.NewReplacer("-", "--", ".", "-").Replace(w.Group)
}

// isWorkload reports whether the text consists of the part by [Workload.kindPart], a dot, and the
// name of a workload.
func isWorkload(text string) bool {
	kind, name, _ := strings.Cut(text, ".")
	of, ok := readKind(kind)
	of.Name = name
	return ok && of.Valid()
}

// readKind reads the text of [Workload.kindPart]. The first single dash separates kind and
// group. Every other single dash stands for a dot of the group, and a doubled dash stands for a
// dash. The text never contains one of Kubernetes' own groups.
func readKind(part string) (Workload, bool) {
	var words [2]strings.Builder
	at, dashes := 0, 0
	for i := 0; i <= len(part); i++ {
		if i < len(part) && part[i] == '-' {
			dashes++
			continue
		}
		switch {
		case dashes == 1 && at == 0:
			at = 1
		case dashes == 1:
			words[at].WriteByte('.')
		case dashes%2 == 1:
			return Workload{}, false
		default:
			words[at].WriteString(strings.Repeat("-", dashes/2))
		}
		dashes = 0
		if i < len(part) {
			words[at].WriteByte(part[i])
		}
	}
	read := Workload{Kind: words[0].String(), Group: words[1].String()}
	return read, read.Kind == strings.ToLower(read.Kind) && (at == 0 || !read.builtin())
}

// isKind reports whether the text can be the kind of a Kubernetes object: a label of RFC
// 1035, in upper or lower case.
func isKind(kind string) bool {
	for _, c := range []byte(kind) {
		if c >= 0x80 {
			return false // ToLower turns some characters outside of ASCII into ASCII letters
		}
	}
	lower := strings.ToLower(kind)
	return len(kind) <= maxLabel && isLabel(lower) && (lower[0] < '0' || lower[0] > '9')
}
