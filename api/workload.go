// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"fmt"
	"strconv"
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
	w := Workload{Group: cmp.Or(group, BuiltinOwner(kind).Group), Kind: kind, Name: name}
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

// Revision identifies the pod template from which a controller made a pod. The zero
// value stands for a pod whose template is unknown.
type Revision struct {
	// Workload is the UID of the top-most controller. A workload that is deleted and made
	// anew has another UID, and its numbers begin anew.
	Workload string
	// Number is the controller's own number of the template, from 1. An undo gives an old
	// template a new number, while living pods keep the old number.
	Number int64
	// Hash is the controller's hash of the template.
	Hash string
}

// String returns "uid/number/hash", or an empty text for an unknown revision.
func (r Revision) String() string {
	if r == (Revision{}) {
		return ""
	}
	return r.Workload + "/" + strconv.FormatInt(r.Number, 10) + "/" + r.Hash
}

// MarshalText returns the text of String.
func (r Revision) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the text as [ParseRevision] does.
func (r *Revision) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRevision(string(text))
	return err
}

// Valid reports whether [ParseRevision] can read the text of String.
func (r Revision) Valid() bool {
	return isIdentifier(r.Workload) && isIdentifier(r.Hash) && r.Number > 0
}

// isIdentifier reports whether a text can be a UID or the hash of a template, by its length and by
// its characters.
func isIdentifier(s string) bool {
	const other = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-."
	return s != "" && len(s) <= maxLabel && strings.Trim(s, other) == ""
}

// ParseRevision reads the text of [Revision.String].
func ParseRevision(text string) (Revision, error) {
	if text == "" {
		return Revision{}, nil
	}
	words := strings.Split(text, "/")
	if len(words) == 3 {
		number, err := strconv.ParseInt(words[1], 10, 64)
		r := Revision{Workload: words[0], Number: number, Hash: words[2]}
		if err == nil && r.Valid() && r.String() == text {
			return r, nil
		}
	}
	return Revision{}, fmt.Errorf("revision %q: need UID/NUMBER/HASH, as the webhook writes it", text)
}

// Same reports whether two pods come from one template. Same ignores the number, because an
// undo gives an old template a new number. The result is false if one of the revisions is
// unknown.
func (r Revision) Same(other Revision) bool {
	return r != Revision{} && r.Workload == other.Workload && r.Hash == other.Hash
}

// NewerThan reports whether the controller rolls from the other revision to this one. The
// result is false for revisions of two workloads, and if one of the revisions is unknown.
func (r Revision) NewerThan(other Revision) bool {
	return r.Workload != "" && r.Workload == other.Workload && !r.Same(other) && r.Number > other.Number
}
