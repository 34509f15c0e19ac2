// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strconv"
	"strings"
)

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
